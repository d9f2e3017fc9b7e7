//! Content that is made from a recipe, because it is large or no text.

use std::fmt::Write as _;

/// The content of a column: what stands there, or what is made of it if it begins with `@`. `⏎` is the
/// end of a line, because a case is one line.
///
/// # Panics
/// If the recipe does not exist.
pub fn content(column: &str) -> Vec<u8> {
    match column.strip_prefix('@') {
        Some(recipe) => make(recipe),
        None => text(column).into_bytes(),
    }
}

fn text(column: &str) -> String {
    column.replace('⏎', "\n").replace('␣', " ")
}

/// Makes what a recipe says:
///
/// - `bytes TEXT`: the text with the escapes of Rust, `\xff` being a byte;
/// - `utf16le TEXT`, `utf16be TEXT`: the text in that encoding, with its mark;
/// - `fill N UNIT TEXT`: the text, with `…` replaced by the unit so often; `%n` in it is the number;
/// - `wrap N OPEN CLOSE TEXT`: the same with so many that open and so many that close;
/// - `stairs N TEXT`: the text, with `…` replaced by mappings in mappings, each on a line of its own;
/// - `graph STEPS`, `cycle N`, `chain N`, `fan N`: a template with these steps, see [`graph`];
/// - `overrides N M NAME`: a template of N steps `s0`, `s1`, …, of which an environment overrides M by the
///   name, in which `%` is a number;
/// - `environments N M`: one of N steps, all of which each of M environments overrides.
///
/// In a unit `␣` is a space.
///
/// # Panics
/// If there is no such recipe, or a number is none.
pub fn make(recipe: &str) -> Vec<u8> {
    let (name, rest) = recipe.split_once(' ').unwrap_or((recipe, ""));
    match name {
        "bytes" => unescape(rest),
        "utf16le" => utf16(rest, u16::to_le_bytes),
        "utf16be" => utf16(rest, u16::to_be_bytes),
        "fill" => {
            let [n, unit, rest] = arguments(rest);
            let unit = text(unit);
            let mut filled = String::new();
            (0..number(n)).for_each(|n| filled.push_str(&unit.replace("%n", &n.to_string())));
            text(rest).replacen('…', &filled, 1).into_bytes()
        }
        "wrap" => {
            let [n, open, rest] = arguments(rest);
            let [close, rest] = arguments(rest);
            let (n, open, close) = (number(n), text(open), text(close));
            let wrapped = format!("{}{}", open.repeat(n), close.repeat(n));
            text(rest).replacen('…', &wrapped, 1).into_bytes()
        }
        "stairs" => {
            let [n, rest] = arguments(rest);
            let mut stairs = String::new();
            (1..=number(n)).for_each(|n| {
                let _infallible = write!(stairs, "\n{}a:", " ".repeat(n));
            });
            text(rest).replacen('…', &stairs, 1).into_bytes()
        }
        "graph" => graph(rest.split(';').map(str::trim)),
        "cycle" => {
            let most = number(rest);
            graph((0..most).map(|n| format!("s{n} s{}", (n + 1) % most)))
        }
        "chain" => graph((0..number(rest)).map(|n| match n {
            0 => "s0".to_owned(),
            n => format!("s{n} s{}", n - 1),
        })),
        "fan" => {
            let leaves: Vec<String> = (0..number(rest)).map(|n| format!("s{n}")).collect();
            let join = format!("join {}", leaves.join(" "));
            graph(leaves.into_iter().chain([join]))
        }
        "overrides" => {
            let [n, m, name] = arguments(rest);
            let one = |n: usize| format!("    - {{name: {}}}\n", name.replace('%', &n.to_string()));
            let overrides: String = (0..number(m)).map(one).collect();
            let steps = graph((0..number(n)).map(|n| format!("s{n}")));
            [&steps[..], b"environments:\n  test:\n    steps:\n", overrides.as_bytes()].concat()
        }
        "environments" => {
            let [n, m] = arguments(rest);
            let one = |n: usize| format!("  e{n}: {{steps: [{{name: ALL, retry: {{}}}}]}}\n");
            let environments: String = (0..number(m)).map(one).collect();
            let steps = graph((0..number(n)).map(|n| format!("s{n}")));
            [&steps[..], b"environments:\n", environments.as_bytes()].concat()
        }
        _ => panic!("no recipe `{name}`"),
    }
}

fn arguments<const N: usize>(text: &str) -> [&str; N] {
    let mut parts = text.splitn(N, ' ');
    std::array::from_fn(|_| parts.next().unwrap_or_else(|| panic!("`{text}`: {N} arguments")))
}

fn number(text: &str) -> usize {
    text.trim().parse().unwrap_or_else(|error| panic!("`{text}`: {error}"))
}

fn utf16(rest: &str, bytes: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    format!("\u{feff}{}", text(rest)).encode_utf16().flat_map(bytes).collect()
}

/// A template of which each step is a line, the first of them the fifth: `name/type parent parent`.
fn graph(steps: impl Iterator<Item = impl AsRef<str>>) -> Vec<u8> {
    let mut yaml = "name: graph\nnamespace_name: corpus\nversion: 1.0.0\nsteps:\n".to_owned();
    for step in steps {
        let (step, parents) = step.as_ref().split_once(' ').unwrap_or((step.as_ref(), ""));
        let (name, kind) = match step.split_once('/') {
            Some((name, kind)) => (name, format!("type: {kind}, ")),
            None => (step, String::new()),
        };
        let parents = match parents.replace(' ', ", ") {
            none if none.is_empty() => none,
            parents => format!("dependencies: [{parents}], "),
        };
        let _infallible =
            writeln!(yaml, "- {{name: {name}, {kind}{parents}handler: {{callable: x}}}}");
    }
    yaml.into_bytes()
}

/// The escapes `\n`, `\r`, `\t`, `\0`, `\\`, `\xNN` for a byte and `\u{…}` for a character.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let bad = || -> ! { panic!("no escape: \\{escape}") };
        let kind = escape.chars().next().unwrap_or_else(|| bad());
        rest = &escape[kind.len_utf8()..];
        match kind {
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' => bytes.push(b'\\'),
            'x' => {
                let digits = rest.get(..2).unwrap_or_else(|| bad());
                bytes.push(u8::from_str_radix(digits, 16).unwrap_or_else(|_| bad()));
                rest = &rest[2..];
            }
            'u' => {
                let hex = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
                let (hex, after) = hex.unwrap_or_else(|| bad());
                let code = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32);
                let character = code.unwrap_or_else(|| bad());
                bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => bad(),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes() {
        for (recipe, expect) in [
            ("bytes a\\n\\xff\\u{e9}\\\\", &b"a\n\xff\xc3\xa9\\"[..]),
            ("utf16le a", b"\xff\xfea\0"),
            ("fill 3 k%n␣ <…>", b"<k0 k1 k2 >"),
            ("wrap 2 [ ] x: …", b"x: [[]]"),
            ("stairs 2 a:…", b"a:\n a:\n  a:"),
        ] {
            assert_eq!(make(recipe), expect, "{recipe}");
        }
        let cycle = String::from_utf8(make("cycle 2")).expect("UTF-8");
        assert!(cycle.ends_with("dependencies: [s0], handler: {callable: x}}\n"), "{cycle}");
        assert_eq!(content("a⏎b"), b"a\nb");
    }
}
