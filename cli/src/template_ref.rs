use std::fmt;
use std::str::FromStr;

use tasker_messages::{Namespace, StepName};

/// A template on the command line: `NAMESPACE/NAME` or `NAMESPACE/NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateRef {
    pub(crate) namespace: Namespace,
    pub(crate) name: StepName,
    /// The newest if `None`.
    pub(crate) version: Option<String>,
}

impl FromStr for TemplateRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, rest) =
            text.split_once('/').ok_or("must be NAMESPACE/NAME or NAMESPACE/NAME@VERSION")?;
        let (name, version) = match rest.split_once('@') {
            Some((_, "")) => return Err("the version after `@` is missing".to_owned()),
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (rest, None),
        };
        Ok(Self {
            namespace: namespace.parse().map_err(|e| format!("{e}"))?,
            name: name.parse().map_err(|e| format!("{e}"))?,
            version,
        })
    }
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        self.version.iter().try_for_each(|version| write!(f, "@{version}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for good in ["a/b", "csv_processing/csv_profile@1.0.0", "a/B-c@x/y"] {
            let parsed: TemplateRef = good.parse().expect(good);
            assert_eq!(parsed.to_string(), good);
        }
        let parsed: TemplateRef = "n/t@2".parse().expect("valid");
        assert_eq!((parsed.name.as_str(), parsed.version.as_deref()), ("t", Some("2")));
        for bad in ["", "a", "/b", "a/", "A/b", "a/b c", "a/b@", "a/@1"] {
            assert!(bad.parse::<TemplateRef>().is_err(), "{bad}");
        }
    }
}
