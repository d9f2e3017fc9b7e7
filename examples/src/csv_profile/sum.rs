use serde::{Deserialize, Serialize};

/// A sum of floats with the part that each addition lost (Neumaier's variant of Kahan's summation:
/// "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", ZAMM 54, 1974).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Sum {
    /// The sum as far as one float holds it.
    #[serde(rename = "sum")]
    high: f64,
    /// What is missing from it.
    #[serde(rename = "sum_low")]
    low: f64,
}

impl Sum {
    pub(super) fn add(&mut self, value: f64) {
        let sum = self.high + value;
        self.low += if self.high.abs() >= value.abs() {
            (self.high - sum) + value
        } else {
            (value - sum) + self.high
        };
        self.high = sum;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.add(other.high);
        self.low += other.low;
    }

    pub(super) fn value(self) -> f64 {
        self.high + self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(values: &[f64]) -> Sum {
        let mut sum = Sum::default();
        values.iter().for_each(|&value| sum.add(value));
        sum
    }

    #[test]
    fn nothing_is_lost() {
        let table: &[(&[f64], f64)] = &[
            (&[], 0.0),
            (&[1.0, 1e100, 1.0, -1e100], 2.0),
            (&[1e16, 1.0, 1.0, 1.0, -1e16], 3.0),
            (&[0.1; 10], 1.0),
        ];
        for &(values, expect) in table {
            assert_eq!(sum(values).value(), expect, "{values:?}");
            for cut in 0..=values.len() {
                let (head, tail) = values.split_at(cut);
                let mut merged = sum(head);
                merged.merge(sum(tail));
                assert_eq!(merged.value(), expect, "{values:?} cut at {cut}");
            }
        }
    }
}
