// SPDX-License-Identifier: MIT

//! The next step of a job.

use crate::answer::OwnedAnswer;
use crate::client::Lock;
use crate::framing::Expect;

/// A node for a key's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeRef {
    pub(crate) node: u32,
    /// The longest time to live there; 0 for any.
    pub(crate) cap: u32,
}

/// A request to a node.
#[derive(Debug)]
pub(crate) struct NodeRequest {
    pub(crate) node_ref: NodeRef,
    pub(crate) request: Vec<u8>,
    pub(crate) expect: Expect,
    /// The number of the answer; `None` if none is needed: then it is dropped while the node is busy.
    pub(crate) part: Option<u16>,
}

/// The next step of a job.
#[derive(Debug, Default)]
pub(crate) struct JobStep {
    /// The answer to the client.
    pub(crate) answer: Option<OwnedAnswer>,
    /// When it continues.
    pub(crate) wake: Option<u64>,
    /// The lock that the client holds then.
    pub(crate) lock: Option<Lock>,
    /// The node to be asked.
    pub(crate) ask: Option<usize>,
    pub(crate) warm: Option<(NodeRef, Vec<u8>)>,
    /// The item to be stored in the first pool, and whether to wait for the answer.
    pub(crate) fill: Option<(Vec<u8>, bool)>,
    /// The nodes at which the key is deleted.
    pub(crate) clear: Vec<(NodeRef, bool)>,
    pub(crate) send: Vec<NodeRequest>,
    /// Bytes that the job will hold; it ends if there is no memory for them.
    pub(crate) hold: usize,
    pub(crate) over: bool,
}

impl JobStep {
    pub(crate) fn end(answer: OwnedAnswer) -> Self {
        JobStep {
            answer: Some(answer),
            over: true,
            ..JobStep::default()
        }
    }
}
