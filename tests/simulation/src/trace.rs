//! What a schedule did, line by line: told, hashed, or neither.

/// Where the lines go.
#[derive(Default)]
pub enum Trace {
    /// Nowhere; they are not even made.
    #[default]
    Silent,
    /// Into a hash, to compare two runs of one schedule.
    Hashed(Box<blake3::Hasher>),
    /// To standard output, and into a hash.
    Told(Box<blake3::Hasher>),
}

impl Trace {
    /// One that hashes.
    pub fn hashed() -> Self {
        Self::Hashed(Box::default())
    }

    /// One that tells.
    pub fn told() -> Self {
        Self::Told(Box::default())
    }

    /// One line.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        match self {
            Self::Silent => {}
            Self::Hashed(hash) => hash_line(hash, &line()),
            Self::Told(hash) => {
                let line = line();
                println!("{line}");
                hash_line(hash, &line);
            }
        }
    }

    /// The hash of all lines so far, in hex; none if they were not made.
    pub fn hash(&self) -> Option<String> {
        match self {
            Self::Silent => None,
            Self::Hashed(hash) | Self::Told(hash) => Some(hash.finalize().to_hex().to_string()),
        }
    }
}

fn hash_line(hash: &mut blake3::Hasher, line: &str) {
    hash.update(line.as_bytes());
    hash.update(b"\n");
}
