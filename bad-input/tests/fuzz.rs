//! The fuzz targets without a fuzzer: their seeds, what was found once, and changes of the seeds that a
//! counter makes. `fuzz/` runs them for as long as one likes.

mod measure;

use std::fs;

use measure::measure;
use tasker_bad_input::{Target, folder};

/// Inputs that were found by fuzzers, in `fuzz/found/<target>`.
fn found(target: &str) -> Vec<Vec<u8>> {
    let folder = folder().join("../../fuzz/found").join(target);
    let files = fs::read_dir(&folder).into_iter().flatten();
    files.map(|file| fs::read(file.expect("a file").path()).expect("an input")).collect()
}

/// A small generator of numbers (xorshift64), so that every run changes the same.
fn next(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 33).unwrap_or_default()
}

/// Bytes that mean something to a parser.
const ODD: &[u8] = b"\"\\{}[]:,0-.eE\x00\xff~&*!|>\n\t ";

/// The seed with some of it changed, as a fuzzer begins.
fn changed(seed: &[u8], others: &[Vec<u8>], state: &mut u64) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..=next(state) % 4 {
        let at = next(state) % (input.len() + 1);
        match next(state) % 6 {
            0 => input.truncate(at),
            1 => input.insert(at, ODD[next(state) % ODD.len()]),
            2 if at < input.len() => drop(input.remove(at)),
            3 if at < input.len() => input[at] ^= 1 << (next(state) % 8),
            4 => {
                let other = &others[next(state) % others.len()];
                let from = next(state) % (other.len() + 1);
                let part = &other[from..(from + 20).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
            _ => {
                let part = input[at..(at + 20).min(input.len())].to_vec();
                input.splice(at..at, part);
            }
        }
    }
    input
}

#[test]
fn seeds_and_what_was_found() {
    let all: usize = Target::ALL.iter().map(|target| found(target.name).len()).sum();
    assert!(all >= 2, "only {all} inputs that were found");
    for target in Target::ALL {
        let seeds = target.seeds();
        assert!(seeds.len() >= 50, "only {} seeds of {}", seeds.len(), target.name);
        for (n, input) in seeds.iter().chain(&found(target.name)).enumerate() {
            measure(&format!("input {n} of {}", target.name), || (target.run)(input));
        }
    }
}

#[test]
fn changes() {
    const CHANGES: usize = 5_000;
    for target in Target::ALL {
        let seeds = target.seeds();
        let mut state = 0x9e37_79b9_7f4a_7c15;
        for n in 0..CHANGES {
            let input = changed(&seeds[n % seeds.len()], &seeds, &mut state);
            let name = format!("{} given {:?}", target.name, String::from_utf8_lossy(&input));
            measure(&name, || (target.run)(&input));
        }
    }
}
