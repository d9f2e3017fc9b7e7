/// The target of the first `rel="next"` in a `Link` header (RFC 8288, section 3).
pub(super) fn next_of(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, others) = after.split_at(end_of_link(after));
        if is_next(parameters) {
            return Some(target.trim());
        }
        rest = others;
    }
}

/// Where the parameters of a link end: at a comma that is not in quotes.
fn end_of_link(text: &str) -> usize {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return at,
            _ => {}
        }
    }
    text.len()
}

/// Whether `next` is among the relations. Only the first `rel` counts.
fn is_next(parameters: &str) -> bool {
    let relations = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("rel").then(|| value.trim().trim_matches('"'))
    });
    relations.is_some_and(|all| all.split_whitespace().any(|rel| rel.eq_ignore_ascii_case("next")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links() {
        let table = [
            ("<https://h/?page=2>; rel=\"next\"", Some("https://h/?page=2")),
            ("<a>; rel=\"prev\", <b>; rel=\"next\", <c>; rel=\"last\"", Some("b")),
            ("<a>;title=\"x, <b>; rel=next\" ; REL=Next", Some("a")),
            ("<a>; title=\"say \\\" , \"; rel=prev, <c>; rel=next", Some("c")),
            ("<a,b;c>; rel=\"first next\"", Some("a,b;c")),
            ("<a>; rel=prev; rel=next", None),
            ("<a>; rel=nextish", None),
            ("<a>", None),
            ("<a", None),
            ("rel=next", None),
            ("", None),
            ("<>; rel=next", Some("")),
        ];
        for (header, expect) in table {
            assert_eq!(next_of(header), expect, "{header}");
        }
    }
}
