//! Versions of templates: `MAJOR.MINOR.PATCH` with an optional pre-release (semver.org 2.0.0).

use std::cmp::Ordering;

/// Longest version in bytes.
const MAX_BYTES: usize = 64;

/// Whether this is a version as templates have them. Build metadata (`+…`) is not, because two
/// templates that differ only there would be the same version.
pub(super) fn is_version(text: &str) -> bool {
    text.len() <= MAX_BYTES && parts(text).is_some()
}

/// Orders versions by precedence, so that the last one is the newest. Texts that are no versions
/// come first.
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    match (parts(one), parts(other)) {
        (Some((a, a_pre)), Some((b, b_pre))) => {
            a.cmp(&b).then_with(|| compare_pre_releases(a_pre, b_pre))
        }
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => one.cmp(other),
    }
}

fn parts(text: &str) -> Option<([u64; 3], Option<&str>)> {
    let (core, pre) = match text.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (text, None),
    };
    let mut numbers = core.split('.').map(number);
    let core = [numbers.next()??, numbers.next()??, numbers.next()??];
    let pre_is_valid = pre.is_none_or(|pre| pre.split('.').all(is_identifier));
    (numbers.next().is_none() && pre_is_valid).then_some((core, pre))
}

fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn is_identifier(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && (!digits || text == "0" || !text.starts_with('0'))
}

/// A version without a pre-release comes after all of its pre-releases; numbers come before words.
fn compare_pre_releases(one: Option<&str>, other: Option<&str>) -> Ordering {
    let (one, other) = match (one, other) {
        (None, None) => return Ordering::Equal,
        (None, Some(_)) => return Ordering::Greater,
        (Some(_), None) => return Ordering::Less,
        (Some(one), Some(other)) => (one, other),
    };
    // Numbers may be too long for an integer; without leading zeros their length orders them.
    let rank = |text: &str| -> (bool, usize, String) {
        let word = !text.bytes().all(|b| b.is_ascii_digit());
        (word, if word { 0 } else { text.len() }, text.to_owned())
    };
    one.split('.').map(rank).cmp(other.split('.').map(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["0.0.0", "1.0.0", "10.20.30", "1.0.0-rc.1", "1.0.0-0", "1.0.0-a-b"] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1.0",
            "1.0.0.0",
            "01.0.0",
            "1.0.0-",
            "1.0.0-a..b",
            "1.0.0-01",
            "1.0.0+build",
            "v1.0.0",
            "1.0.x",
            "1.0.0 ",
            "-1.0.0",
            "1.+1.0",
            "99999999999999999999.0.0",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
        assert!(!is_version(&format!("1.0.0-{}", "a".repeat(64))));
    }

    #[test]
    fn order() {
        let ordered = [
            "not a version",
            "0.9.9",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.2.0",
            "1.10.0",
        ];
        assert!(ordered.is_sorted_by(|a, b| compare_versions(a, b) == Ordering::Less));
    }
}
