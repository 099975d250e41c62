//! The parts of a node id of pytest: `tests/test_a.py::TestIndex::test_search[a::b]`.

/// A node id in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node<'a> {
    /// Of the file, from the root of the tests.
    pub(super) path: &'a str,
    /// Classes around the test, the outermost first.
    pub(super) classes: Vec<&'a str>,
    /// The test, with its parameters.
    pub(super) name: &'a str,
}

impl<'a> Node<'a> {
    /// Takes it apart. An id without a test is a file's: its path is also its name.
    pub(super) fn of(id: &'a str) -> Self {
        // What stands in brackets is the test's parameters, which may hold anything.
        let plain = id.find('[').map_or(id, |at| &id[..at]);
        let Some(name_at) = plain.rfind("::") else {
            return Self {
                path: id,
                classes: Vec::new(),
                name: id,
            };
        };
        let mut before = plain[..name_at].split("::");
        Self {
            path: before.next().unwrap_or_default(),
            classes: before.collect(),
            name: &id[name_at + 2..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_may_look_like_parts() {
        let node = Node::of("tests/test_a.py::TestIndex::TestInner::test_search[a::b[c]]");
        assert_eq!(node.path, "tests/test_a.py");
        assert_eq!(node.classes, ["TestIndex", "TestInner"]);
        assert_eq!(node.name, "test_search[a::b[c]]");
        let file = Node::of("tests/test_a.py");
        assert_eq!(
            (file.path, file.name),
            ("tests/test_a.py", "tests/test_a.py")
        );
    }
}
