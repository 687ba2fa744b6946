//! Secure Boot's keys, given to a firmware that has none.
//!
//! Promises: only a firmware in setup mode takes them, and only those for the image that runs;
//! the last one switches Secure Boot on. Before that nothing is proven by anybody, and the TPM
//! isn't touched.

use std::{fs, path::Path};

use anyhow::{Context, ensure};
use hoidla_cli::Screen;
use hoidla_medium::{papers::Papers, slot};
use hoidla_verify::{
    boot::signature_list,
    manifest::{OWNER, boot_key_digits},
};

use super::{Room, page, stick::Stick};
use crate::pid1::{boot, firmware, power::End};

/// The variables in the order in which they are set, with the GUID that each is of, and its file.
const VARIABLES: [(&str, &str, &str); 3] =
    [("db", firmware::DATABASE, "db.auth"), ("KEK", firmware::GLOBAL, "KEK.auth"), ("PK", firmware::GLOBAL, "PK.auth")];
/// The most bytes of such a file.
const MOST: usize = 16 << 10;
/// Kept in flash, seen at boot and after, changed by who has signed and when.
const ATTRIBUTES: [u8; 4] = 0x27u32.to_le_bytes();

/// Offers to give the machine the site's keys.
pub fn offer(room: &mut Room) -> anyhow::Result<End> {
    let stick = boot::wait_for(|| Stick::find(&room.sys))?
        .context("the firmware is in setup mode: start the machine from the stick, which gives it the site's Secure Boot keys")?;
    let on_it = slot::read(&stick.slot()?).context("the stick that this machine was started from")?;
    let files = files(&stick.papers()?, &on_it.certificate)?;
    room.person.show(&explained(&on_it.certificate));
    loop {
        if room.person.ask("Type keys and press Enter:") == "keys" {
            break;
        }
        room.person.tell("Nothing was changed. The power button switches the machine off.");
    }
    for ((name, guid, _), bytes) in VARIABLES.into_iter().zip(&files) {
        set(&room.sys, name, guid, bytes)?;
    }
    room.person.tell("The machine has its keys, and starts again with Secure Boot on.");
    Ok(End::Restart)
}

fn explained(certificate: &[u8]) -> Screen {
    let mut s = page("this machine has no Secure Boot keys");
    s.words("From now on it shall start nothing but images that your site has signed. For that its firmware takes the key of the stick:");
    s.gap().field("boot key", &boot_key_digits(certificate)).gap();
    s.words("Compare these digits with the paper that came with the stick. If they differ, press the power button and call home.");
    s
}

/// The three files from among the papers, if they are for this certificate.
fn files(papers: &Papers, certificate: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
    let list = signature_list(&OWNER, certificate);
    let file = |(_, _, file): (&str, &str, &str)| {
        let named = |path: &String| path.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case(file));
        let found = papers.iter().find(|(path, _)| named(path)).map(|(_, bytes)| bytes);
        let bytes = found.with_context(|| {
            format!("{file} is not among the papers on the stick: copy the three .auth files from the boot key's folder at home onto it")
        })?;
        ensure!(
            bytes.len() <= MOST && bytes.ends_with(&list),
            "{file} is for another key than the one that this image is signed with: take those of this stick's release"
        );
        Ok(bytes.clone())
    };
    VARIABLES.into_iter().map(file).collect()
}

fn set(sys: &Path, name: &str, guid: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = sys.join(format!("firmware/efi/efivars/{name}-{guid}"));
    let written = fs::write(path, [&ATTRIBUTES[..], bytes].concat());
    written.with_context(|| {
        format!("the firmware doesn't take {name}: delete all Secure Boot keys in its setup (setup mode), then start the stick again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_of_the_image_itself_are_given() {
        let (certificate, other) = (vec![7; 800], vec![8; 800]);
        let of = |certificate: &[u8]| [&[1; 60][..], &signature_list(&OWNER, certificate)].concat();
        let mut papers: Papers = ["keys/db.auth", "KEK.AUTH", "pk.auth"].map(|n| (n.to_owned(), of(&certificate))).into();
        assert_eq!(files(&papers, &certificate).unwrap().len(), 3);
        assert!(files(&papers, &other).unwrap_err().to_string().contains("another key"));
        papers.insert("pk.auth".into(), of(&other));
        assert!(files(&papers, &certificate).unwrap_err().to_string().contains("PK.auth"));
        papers.remove("pk.auth");
        assert!(files(&papers, &certificate).unwrap_err().to_string().contains("not among the papers"));
        super::super::fits(&explained(&certificate));
    }
}
