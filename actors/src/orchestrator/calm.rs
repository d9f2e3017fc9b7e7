//! Sweeps of an actor for which nothing happens: a third of them.

/// Ticks without a disturbance, one after the other, after which an actor counts as idle.
const IDLE_AFTER: u32 = 10;
/// Of how many ticks an idle one sweeps at one.
const IDLE_EVERY: u32 = 3;

/// Decides at which ticks an actor looks for what was lost. Where nothing happens, hardly anything is lost
/// that is not another node's, and each look is a statement that the database answers in vain, or a request
/// that the bus does.
#[derive(Debug, Default)]
pub(crate) struct Calm {
    ticks: u32,
}

impl Calm {
    /// Something happens here, or was found.
    pub(crate) fn disturb(&mut self) {
        self.ticks = 0;
    }

    /// Whether to look at this tick.
    pub(crate) fn tick(&mut self) -> bool {
        self.ticks = self.ticks.saturating_add(1);
        self.ticks <= IDLE_AFTER || self.ticks.is_multiple_of(IDLE_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_actor_looks_at_every_third_tick() {
        let mut calm = Calm::default();
        let looks = |calm: &mut Calm, ticks: u32| (0..ticks).filter(|_| calm.tick()).count();
        assert_eq!(looks(&mut calm, 10), 10);
        assert_eq!(looks(&mut calm, 300), 100);
        calm.disturb();
        assert_eq!(looks(&mut calm, 10), 10);
        assert_eq!(looks(&mut calm, 3), 1);
    }
}
