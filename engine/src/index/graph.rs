//! The graph of an HNSW index, laid out flat.

/// Lists of numbers, one after the other: list `i` is `targets[offsets[i]..offsets[i + 1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) offsets: Vec<u32>,
    pub(crate) targets: Vec<u32>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            offsets: vec![0],
            targets: Vec::new(),
        }
    }
}

impl Links {
    pub(crate) fn from_lists<'a>(lists: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut links = Self::default();
        lists.into_iter().for_each(|list| links.push(list));
        links
    }

    /// Adds a list at the end.
    pub(crate) fn push(&mut self, list: &[u32]) {
        self.targets.extend_from_slice(list);
        self.offsets.push(self.targets.len() as u32);
    }

    /// Number of lists.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    pub(crate) fn list(&self, i: u32) -> &[u32] {
        let i = i as usize;
        &self.targets[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Whether there are `lists` lists of numbers below `end`.
    fn fits(&self, lists: usize, end: usize) -> bool {
        self.offsets.len() == lists + 1
            && self.offsets.first() == Some(&0)
            && self.offsets.last().map(|last| *last as usize) == Some(self.targets.len())
            && self.offsets.is_sorted()
            && self.targets.iter().all(|target| (*target as usize) < end)
    }
}

/// An upper layer: a few of the nodes, and their links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    /// Ascending; list `i` of the links is that of `nodes[i]`.
    pub(crate) nodes: Vec<u32>,
    pub(crate) links: Links,
}

impl Layer {
    /// The links of a node; none when it is not in this layer.
    pub(crate) fn list(&self, node: u32) -> &[u32] {
        self.nodes
            .binary_search(&node)
            .map_or(&[], |i| self.links.list(i as u32))
    }
}

/// Nodes, each standing for one or more identical rows, and the links between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    /// Where a search starts; in the highest layer.
    pub(crate) entry: u32,
    /// Rows of each node, ascending.
    pub(crate) members: Links,
    /// The lowest layer, with every node.
    pub(crate) base: Links,
    /// The layers above it, lowest first.
    pub(crate) upper: Vec<Layer>,
}

impl Graph {
    /// Number of nodes.
    pub(crate) fn nodes(&self) -> usize {
        self.members.len()
    }

    /// The row whose numbers are those of the node.
    pub(crate) fn row(&self, node: u32) -> usize {
        self.members.targets[self.members.offsets[node as usize] as usize] as usize
    }

    /// Whether every number points to something, so that a search over `rows` rows cannot fail.
    pub(crate) fn is_sound(&self, rows: usize) -> bool {
        let nodes = self.nodes();
        self.members.fits(nodes, rows)
            && self.members.offsets.is_sorted_by(|a, b| a < b)
            && self.members.targets.len() == rows
            && self.base.fits(nodes, nodes)
            && ((self.entry as usize) < nodes || nodes == 0)
            && self.upper.iter().all(|layer| {
                layer.links.fits(layer.nodes.len(), nodes)
                    && layer.nodes.is_sorted_by(|a, b| a < b)
                    && layer.nodes.iter().all(|node| (*node as usize) < nodes)
            })
    }
}
