//! Which submissions fit into what a namespace may have open.

/// A submission to a namespace that has a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applicant<'a> {
    /// Its idempotency key.
    pub key: Option<&'a str>,
    /// Whether a stored task has that key, so that no new one can come of it.
    pub is_known: bool,
}

/// Which of these are let through while `room` more tasks may be open, in their order. Whoever can
/// only find a task that exists, or that comes of another one of the set, takes no room.
pub fn admit(room: u32, applicants: &[Applicant<'_>]) -> Vec<bool> {
    let mut room = room;
    let mut admitted: Vec<bool> = Vec::with_capacity(applicants.len());
    let mut keys = std::collections::HashMap::new();
    for applicant in applicants {
        let earlier = applicant.key.and_then(|key| keys.get(key).copied());
        let fits = match earlier {
            Some(fate) => fate,
            None if applicant.is_known => true,
            None if room > 0 => {
                room -= 1;
                true
            }
            None => false,
        };
        if let Some(key) = applicant.key {
            keys.insert(key, fits);
        }
        admitted.push(fits);
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applicants as their keys: `-` has none, `k*` is known.
    fn check(room: u32, applicants: &str, expect: &str) {
        let set: Vec<Applicant<'_>> = applicants
            .split(' ')
            .map(|text| Applicant {
                key: Some(text.trim_end_matches('*')).filter(|key| *key != "-"),
                is_known: text.ends_with('*'),
            })
            .collect();
        let got: String =
            admit(room, &set).into_iter().map(|fits| if fits { '+' } else { '.' }).collect();
        assert_eq!(got, expect, "{room} {applicants}");
    }

    #[test]
    fn who_is_let_through() {
        check(2, "- - -", "++.");
        check(0, "- a", "..");
        check(9, "- a b", "+++");
        // What is stored is found, however full it is.
        check(0, "a* - b*", "+.+");
        check(1, "a* b c", "++.");
        // The second of two with one key finds what became of the first.
        check(1, "a a b", "++.");
        check(0, "a a", "..");
    }
}
