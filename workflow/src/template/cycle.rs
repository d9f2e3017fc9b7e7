/// The circles of a graph given by the parents of each node, each starting at its first node in
/// document order and going from child to parent. Without recursion: ten thousand steps can hang on
/// one another.
pub(super) fn find(parents: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let remaining = without_acyclic(parents);
    // 0 is not seen; a walk marks its nodes with its own number.
    let mut walk_of = vec![0_usize; parents.len()];
    let mut cycles = Vec::new();
    for start in (0..parents.len()).filter(|&n| remaining[n]) {
        let mut walk = Vec::new();
        let mut at = start;
        while walk_of[at] == 0 {
            walk_of[at] = start + 1;
            walk.push(at);
            match parents[at].iter().find(|&&parent| remaining[parent]) {
                Some(&parent) => at = parent,
                None => break,
            }
        }
        let closes = walk.iter().position(|&n| n == at && walk_of[n] == start + 1);
        if let Some(from) = closes.filter(|_| parents[at].iter().any(|&p| remaining[p])) {
            let mut cycle = walk.split_off(from);
            let first = cycle.iter().enumerate().min_by_key(|&(_, &n)| n).map_or(0, |(i, _)| i);
            cycle.rotate_left(first);
            cycles.push(cycle);
        }
    }
    cycles
}

/// Takes away, again and again, every node without parents (Kahn's algorithm). What remains lies on
/// a circle or behind one, and has a remaining parent.
fn without_acyclic(parents: &[Vec<usize>]) -> Vec<bool> {
    let mut children = vec![Vec::new(); parents.len()];
    for (n, list) in parents.iter().enumerate() {
        list.iter().for_each(|&parent| children[parent].push(n));
    }
    let mut open: Vec<usize> = parents.iter().map(Vec::len).collect();
    let mut free: Vec<usize> = (0..parents.len()).filter(|&n| open[n] == 0).collect();
    let mut remaining = vec![true; parents.len()];
    while let Some(n) = free.pop() {
        remaining[n] = false;
        for &child in &children[n] {
            open[child] -= 1;
            if open[child] == 0 {
                free.push(child);
            }
        }
    }
    remaining
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(parents: &[&[usize]], expect: &[&[usize]]) {
        let parents: Vec<Vec<usize>> = parents.iter().map(|list| list.to_vec()).collect();
        assert_eq!(find(&parents), expect, "{parents:?}");
    }

    #[test]
    fn cycles() {
        check(&[], &[]);
        check(&[&[], &[0], &[0, 1]], &[]);
        check(&[&[0]], &[&[0]]);
        check(&[&[1], &[0]], &[&[0, 1]]);
        check(&[&[2], &[0], &[1]], &[&[0, 2, 1]]);
        check(&[&[1], &[2], &[3], &[1]], &[&[1, 2, 3]]);
        check(&[&[1], &[0], &[3], &[2], &[0, 2]], &[&[0, 1], &[2, 3]]);
        // Entered at its last node, told from its first.
        check(&[&[3], &[], &[3], &[2]], &[&[2, 3]]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let mut parents: Vec<Vec<usize>> =
            (0..200_000_usize).map(|n| n.checked_sub(1).into_iter().collect()).collect();
        assert!(find(&parents).is_empty());
        parents[0] = vec![199_999];
        assert_eq!(find(&parents).len(), 1);
    }
}
