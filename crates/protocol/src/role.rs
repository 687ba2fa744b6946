//! Who the peer is, as the door found it, and what that lets them ask.

use hoidla_format::{Bytes, Name};

use crate::Type;

/// The peer of one connection. The door decides it from the certificate alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// May append to, list, audit and ask the health of its dataset, and carry other sites' heads and newer papers.
    Agent {
        /// The only dataset it may name.
        dataset: Name,
        /// The agent's name.
        agent: Name,
    },
    /// May take part in ceremonies and seal, and carry newer papers.
    Custodian {
        /// The custodian's name in the roster.
        name: Name,
    },
    /// May list and read the datasets of the grants that name its key, and fetch their keys.
    Reader {
        /// The reader's name in the grant.
        name: Name,
        /// The reader's key: P-384, SEC1, compressed.
        signing: Bytes,
    },
}

impl Role {
    /// Whether a peer of this role may send such a message at all.
    pub fn may_send(&self, kind: Type) -> bool {
        match kind {
            Type::Open | Type::Append | Type::Prove | Type::Witness => matches!(self, Self::Agent { .. }),
            Type::Propose | Type::Approve | Type::Seal => matches!(self, Self::Custodian { .. }),
            Type::Keys | Type::Read => matches!(self, Self::Reader { .. }),
            Type::List => !matches!(self, Self::Custodian { .. }),
            Type::Update => !matches!(self, Self::Reader { .. }),
            Type::Health | Type::Papers | Type::Extend => true,
            _ => false,
        }
    }

    /// Whether a peer of this role may name this dataset, as far as the role alone says:
    /// a reader's grants are looked up by the appliance.
    pub fn may_name(&self, dataset: &Name) -> bool {
        match self {
            Self::Agent { dataset: own, .. } => own == dataset,
            Self::Custodian { .. } => false,
            Self::Reader { .. } => true,
        }
    }

    /// For logs and limits: role and name.
    pub fn label(&self) -> String {
        match self {
            Self::Agent { dataset, agent } => format!("agent {agent} of {dataset}"),
            Self::Custodian { name } => format!("custodian {name}"),
            Self::Reader { name, .. } => format!("reader {name}"),
        }
    }
}
