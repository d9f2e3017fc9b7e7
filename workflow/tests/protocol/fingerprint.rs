//! A state in 128 bits. Two of a million states are taken for one with a probability of about 2^-89.

use std::hash::{Hash, Hasher};

/// Two lanes of multiplications and rotations, mixed at the end as MurmurHash3 does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fingerprint {
    a: u64,
    b: u64,
}

impl Default for Fingerprint {
    fn default() -> Self {
        Self { a: 0x9e37_79b9_7f4a_7c15, b: 0xc2b2_ae3d_27d4_eb4f }
    }
}

impl Fingerprint {
    pub(crate) fn of(thing: &impl Hash) -> u128 {
        let mut print = Self::default();
        thing.hash(&mut print);
        u128::from(mix(print.a)) << 64 | u128::from(mix(print.b ^ print.a.rotate_left(32)))
    }

    fn add(&mut self, word: u64) {
        self.a = (self.a ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
        self.b = (self.b.rotate_left(23) ^ word).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    z = (z ^ (z >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    z ^ (z >> 33)
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        mix(self.a ^ self.b.rotate_left(32))
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.add(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.add(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.add(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }
}
