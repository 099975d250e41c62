//! "Did you mean": the known name that a misspelt one is nearest to.

/// The name of `known` that is at most a third of its length away from `name`, if there is one.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// The longest key is shorter; a longer name is no misspelling, and its distance costs.
    const LONGEST: usize = 64;

    if name.len() > LONGEST {
        return None;
    }
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance in characters, `-` counting as `_`: flags have the one, keys the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left
        .chars()
        .map(|c| if c == '-' { '_' } else { c })
        .enumerate()
    {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspellings_find_their_key_and_strangers_none() {
        let known = ["memory_max", "memory_high", "timeout", "safe"];
        let find = |name| nearest(name, known.into_iter());
        assert_eq!(find("memroy_max"), Some("memory_max"));
        assert_eq!(find("memory-high"), Some("memory_high"));
        assert_eq!(find("timeuot"), Some("timeout"));
        assert_eq!(find("saef"), None, "two of four letters is another word");
        assert_eq!(find("colour"), None);
        assert_eq!(find(""), None);
        assert_eq!(find(&"m".repeat(1 << 20)), None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ü", "u"), 1);
    }
}
