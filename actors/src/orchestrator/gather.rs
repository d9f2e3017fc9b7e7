use std::collections::VecDeque;

/// Gathers what waits into sets while earlier sets are being worked off: at once when idle, larger
/// under load. One set beside another must be worth it.
pub(crate) struct Gather<T> {
    waiting: VecDeque<T>,
    in_flight: u32,
    max_in_flight: u32,
    max_set: usize,
    max_waiting: usize,
    worthwhile: usize,
}

impl<T> Gather<T> {
    pub(crate) fn new(max_in_flight: u32, max_set: u32, max_waiting: u32) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: 0,
            max_in_flight,
            max_set: max_set as usize,
            max_waiting: max_waiting as usize,
            worthwhile: 1,
        }
    }

    /// While a set is being worked off, so many must wait for another one to begin.
    pub(crate) fn worthwhile(self, worthwhile: u32) -> Self {
        Self { worthwhile: worthwhile as usize, ..self }
    }

    /// Takes an item in, or gives it back if too many wait.
    pub(crate) fn push(&mut self, item: T) -> Result<(), T> {
        if self.waiting.len() >= self.max_waiting {
            return Err(item);
        }
        self.waiting.push_back(item);
        Ok(())
    }

    /// The next set to work off, if something waits and there is room; [`Self::done`] ends it.
    pub(crate) fn next_set(&mut self) -> Option<Vec<T>> {
        let enough = if self.in_flight == 0 { 1 } else { self.worthwhile };
        if self.waiting.len() < enough || self.in_flight >= self.max_in_flight {
            return None;
        }
        self.in_flight += 1;
        let n = self.waiting.len().min(self.max_set);
        Some(self.waiting.drain(..n).collect())
    }

    /// A set has been worked off.
    pub(crate) fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_grow_while_one_is_in_flight() {
        let mut gather = Gather::new(1, 3, 5);
        assert_eq!(gather.push(1), Ok(()));
        assert_eq!(gather.next_set(), Some(vec![1]));
        for n in 2..=6 {
            assert_eq!(gather.push(n), Ok(()));
        }
        assert_eq!(gather.push(7), Err(7));
        assert_eq!(gather.next_set(), None);
        gather.done();
        assert_eq!(gather.next_set(), Some(vec![2, 3, 4]));
        gather.done();
        assert_eq!(gather.next_set(), Some(vec![5, 6]));
    }

    #[test]
    fn a_second_set_must_be_worth_it() {
        let mut gather = Gather::new(2, 9, 9).worthwhile(3);
        let push = |gather: &mut Gather<u8>, n| assert_eq!(gather.push(n), Ok(()));
        push(&mut gather, 1);
        assert_eq!(gather.next_set(), Some(vec![1]));
        push(&mut gather, 2);
        push(&mut gather, 3);
        assert_eq!(gather.next_set(), None);
        push(&mut gather, 4);
        assert_eq!(gather.next_set(), Some(vec![2, 3, 4]));
        push(&mut gather, 5);
        gather.done();
        assert_eq!(gather.next_set(), None, "the other one is under way");
        gather.done();
        assert_eq!(gather.next_set(), Some(vec![5]));
    }
}
