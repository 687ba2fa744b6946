//! The site file that this machine believed last, kept in a folder of its own beside the papers.
//!
//! Promises: once a site file was believed, no other authority's is, none of another site,
//! none that is older, and no other one of the same serial. So who can put papers into the
//! folder, and nothing else, cannot turn the agent to a vault of their own, nor bring a revoked
//! paper back. It doesn't hold against whoever deletes the file it keeps.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, anyhow};
use hoidla_cli::NextStep;
use hoidla_crypto::sign::Signed;
use hoidla_format::statements::Site;

use crate::home::{of_authority, open_site, read_bounded};

const FOLDER: &str = "believed";

fn place(home: &Path) -> PathBuf {
    home.join(FOLDER).join("site.txt")
}

fn load(home: &Path) -> Result<Option<Signed<Site>>> {
    let path = place(home);
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let (site, _) = open_site(&read_bounded(&path)?)
        .with_context(|| format!("{}, the site file that this agent believed last, is damaged", path.display()))
        .next("remove that file only after you compared the authority's digits by telephone; status shows them then")?;
    Ok(Some(site))
}

/// Holds a site file against the one that was believed last; a newer one takes its place.
pub fn check(home: &Path, site: &Signed<Site>) -> Result<()> {
    let Some(last) = load(home)? else { return Ok(()) };
    let (new, old) = (&site.statement, &last.statement);
    if new.authority != old.authority || new.site != old.site {
        let (theirs, ours) = (of_authority(new), of_authority(old));
        let what = anyhow!(
            "this site file is of the site {} and the authority {theirs}; this agent copies for the site {} and the authority {ours}",
            new.site,
            old.site
        );
        return Err(what).next(format!(
            "don't go on: nothing was sealed. Had the authority truly changed its key, it would tell you in person; only then remove {}",
            place(home).display()
        ));
    }
    if new.serial < old.serial {
        return Err(anyhow!("this site file has serial {}, and this agent has seen serial {}: it is out of date", new.serial, old.serial))
            .next("fetch the newest site file from the authority");
    }
    if new.serial == old.serial && site.hash != last.hash {
        return Err(anyhow!("this is another site file of serial {} than this agent has seen", new.serial))
            .next("don't go on; ask the authority which is right, and let it sign one with a higher serial");
    }
    if new.serial > old.serial { remember(home, site) } else { Ok(()) }
}

/// Keeps a site file that [`check`] passed.
pub fn remember(home: &Path, site: &Signed<Site>) -> Result<()> {
    if load(home)?.is_some_and(|last| last.hash == site.hash) {
        return Ok(());
    }
    let path = place(home);
    let write = || -> std::io::Result<()> {
        let dir = home.join(FOLDER);
        fs::create_dir_all(&dir)?;
        let fresh = dir.join(format!("site.{}.new", process::id()));
        let mut file = File::create(&fresh)?;
        file.write_all(site.note.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&dir)?.sync_all()
    };
    write().with_context(|| format!("cannot keep the site file in {}", path.display()))
}
