//! Who runs the program, and whether the site file is their authority's.
//!
//! Promises: a site file that contradicts what stands beside the key is refused before anything is
//! connected to; where nothing stands there, a script must give the authority's digits and a
//! person must type that they compared them.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args as ClapArgs;
use hoidla_cli::{NextStep, Output, PassphraseSource, Screen, confirm_typed};
use hoidla_crypto::envelope::CustodianKeys;
use hoidla_format::Name;
use hoidla_quorum::fingerprint;

use crate::{
    new,
    papers::Known,
    trust::{self, Standing},
};

/// Who, and at which site.
#[derive(ClapArgs)]
pub struct Me {
    /// The site file.
    #[arg(long, value_name = "FILE", default_value = "site.txt")]
    pub site: PathBuf,
    /// Your key file.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The authority's digits that you compared by telephone; they must be the site file's.
    #[arg(long, value_name = "DIGITS")]
    pub authority: Option<String>,
    #[command(flatten)]
    /// Where the passphrase of the key file comes from.
    pub passphrase: PassphraseSource,
}

/// Lets a person compare the authority's digits, where nothing is remembered of it.
pub fn compare(me: &Me, known: &Known, name: &Name, keys: &CustodianKeys, unasked: bool) -> Result<bool> {
    let (digits, site) = (known.fingerprint(), &known.site.statement.site);
    if unasked {
        return Err(anyhow::anyhow!("there is no trust file beside {} that tells who {site}'s authority is", me.key.display()))
            .next(format!("compare {digits} with another custodian's digits by telephone, then add: --authority \"{digits}\""));
    }
    let mut screen = Screen::new();
    screen.heading(&format!("Is this {site}'s authority?")).field("its digits", &digits).gap();
    screen.words("Nothing beside your key tells who the authority is. Compare these digits with those you noted when you first confirmed, or call another custodian. Whoever swaps a site file wants your share.");
    let agreed = confirm_typed(screen.text(), "compared")?;
    if agreed && let Err(e) = trust::remember(&me.key, name, keys, known) {
        eprintln!("This is asked again next time: {e:#}");
    }
    Ok(agreed)
}

/// Whether digits were given; they must be the site file's authority's.
pub fn given(digits: Option<&str>, known: &Known) -> Result<bool> {
    let Some(digits) = digits else { return Ok(false) };
    if fingerprint::same(digits, &known.fingerprint()) {
        return Ok(true);
    }
    Err(anyhow::anyhow!("this site file's authority has the digits {}, not those you gave", known.fingerprint()))
        .next("don't go on with this site file; ask the authority or another custodian for theirs")
}

impl Me {
    /// Opens the key file and holds the site file against what is remembered beside it; says
    /// whether the authority is the one remembered, or the one whose digits were given.
    pub fn open(&self, known: &Known, output: &Output) -> Result<(Name, CustodianKeys, bool)> {
        let given = given(self.authority.as_deref(), known)?;
        let (name, keys) = new::open(&self.key, &self.passphrase)?;
        let compared = match trust::check(&self.key, &name, &keys, known)? {
            Standing::Known => true,
            Standing::Unknown if given => {
                if let Err(e) = trust::remember(&self.key, &name, &keys, known) {
                    output.say(format!("The authority's digits must be given again next time: {e:#}"));
                }
                true
            }
            Standing::Unknown => false,
        };
        Ok((name, keys, compared))
    }
}
