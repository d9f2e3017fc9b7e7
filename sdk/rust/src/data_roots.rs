use std::io;
use std::path::{Path, PathBuf};

use crate::{StepError, code};

/// Where the files are that handlers may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRoots {
    /// What relative paths are relative to.
    pub base: PathBuf,
    /// Files must lie below one of these.
    pub roots: Vec<PathBuf>,
}

impl DataRoots {
    /// The canonical path of an existing file or directory below one of the roots.
    ///
    /// Symbolic links are followed before the check, so a link out of a root does not help. Errors
    /// show the path as it was given and do not tell whether a file outside the roots exists.
    ///
    /// # Errors
    /// [`code::PATH_OUTSIDE_DATA_ROOTS`], [`code::FILE_NOT_FOUND`] or [`code::FILE_NOT_READABLE`],
    /// all permanent.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, StepError> {
        let full = self.base.join(path);
        let refuse = |code: &str, what: &str| {
            let message = format!("{path:?} {what}");
            Err(StepError::permanent(code, message))
        };
        match full.canonicalize() {
            Ok(found) if self.holds(&found) => Ok(found),
            Err(e) if self.may_tell_about(&full) => match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                    refuse(code::FILE_NOT_FOUND, "does not exist on the worker")
                }
                _ => refuse(code::FILE_NOT_READABLE, &format!("cannot be read: {e}")),
            },
            _ => refuse(
                code::PATH_OUTSIDE_DATA_ROOTS,
                "is outside the data roots of the worker; start it with a data root that holds it",
            ),
        }
    }

    fn holds(&self, found: &Path) -> bool {
        // Roots may be links themselves; one that does not exist holds nothing.
        self.roots
            .iter()
            .filter_map(|root| root.canonicalize().ok())
            .any(|root| found.starts_with(root))
    }

    /// Whether the part of the path that exists lies below a root.
    fn may_tell_about(&self, full: &Path) -> bool {
        let existing = full.ancestors().find_map(|part| part.canonicalize().ok());
        existing.is_some_and(|found| self.holds(&found))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths() {
        let dir = std::env::temp_dir().join(format!("tasker-data-roots-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        for sub in ["base/data", "other", "secret"] {
            fs::create_dir_all(dir.join(sub)).expect("a directory");
        }
        for file in ["base/data/a.csv", "other/b.csv", "secret/c.csv"] {
            fs::write(dir.join(file), "x").expect("a file");
        }
        symlink(dir.join("secret/c.csv"), dir.join("base/data/link.csv")).expect("a link");
        symlink(dir.join("secret"), dir.join("base/data/linked")).expect("a link");
        symlink(dir.join("other"), dir.join("root")).expect("a link");
        let files = DataRoots {
            base: dir.join("base"),
            roots: vec![dir.join("base/data"), dir.join("root"), dir.join("missing")],
        };
        let absolute = |part: &str| dir.join(part).display().to_string();
        let table = [
            ("data/a.csv".to_owned(), Ok("base/data/a.csv")),
            ("data/../data/a.csv".to_owned(), Ok("base/data/a.csv")),
            (absolute("base/data/a.csv"), Ok("base/data/a.csv")),
            (absolute("root/b.csv"), Ok("other/b.csv")),
            ("../other/b.csv".to_owned(), Ok("other/b.csv")),
            ("data/none.csv".to_owned(), Err(code::FILE_NOT_FOUND)),
            ("data/a.csv/none".to_owned(), Err(code::FILE_NOT_FOUND)),
            ("data/nul\0.csv".to_owned(), Err(code::FILE_NOT_READABLE)),
            ("data/link.csv".to_owned(), Err(code::PATH_OUTSIDE_DATA_ROOTS)),
            ("data/linked/none.csv".to_owned(), Err(code::PATH_OUTSIDE_DATA_ROOTS)),
            ("../secret/c.csv".to_owned(), Err(code::PATH_OUTSIDE_DATA_ROOTS)),
            ("../secret/none.csv".to_owned(), Err(code::PATH_OUTSIDE_DATA_ROOTS)),
            ("/etc/passwd".to_owned(), Err(code::PATH_OUTSIDE_DATA_ROOTS)),
            ("/nowhere/at/all".to_owned(), Err(code::PATH_OUTSIDE_DATA_ROOTS)),
        ];
        let real = dir.canonicalize().expect("it exists");
        for (path, expect) in table {
            let got = files.resolve(&path);
            let got = got.as_deref().map_err(|e| e.code());
            assert_eq!(
                got,
                expect.map(|part| real.join(part)).as_deref().map_err(|&e| e),
                "{path}"
            );
        }
        fs::remove_dir_all(&dir).expect("tidy up");
    }
}
