//! Writes the seeds of the fuzz targets: `cargo run -p tasker-bad-input --example seeds -- fuzz/corpus`.

use std::path::PathBuf;
use std::{env, fs, io};

use tasker_bad_input::Target;

fn main() -> io::Result<()> {
    let folder = env::args().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("give the folder of the seeds"))?;
    for target in Target::ALL {
        let folder = folder.join(target.name);
        fs::create_dir_all(&folder)?;
        for (n, seed) in target.seeds().iter().enumerate() {
            fs::write(folder.join(format!("seed_{n:04}")), seed)?;
        }
    }
    Ok(())
}
