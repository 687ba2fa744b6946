//! The authority's whole work in one folder, and what it refuses; a file a subject.
#![forbid(unsafe_code)]

mod dealing;
mod enrolment;
mod releases;
mod rosters;
mod sites;
mod stage;
mod whole;
