//! The command line.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use hoidla_cli::{NextStep, Outcome, Output, PassphraseSource, Screen, human};
use hoidla_crypto::{
    keyfile::{KeyFile, Role},
    keys::AuthorityKeys,
    sign::{self, VerifyingKey},
};
use hoidla_format::{Name, statement, statements::Site};
use hoidla_medium::{Slot, stick};
use hoidla_quorum::fingerprint;
use hoidla_verify::manifest;
use serde_json::{Map, Value, json};

use crate::{
    archive::{self, Archive},
    authenticode,
    boot_key::{self, BootKey},
    compose::{self, Recipe},
    inspect::{AUTHORITY_NAME, File, Inside},
    lock::Lock,
};

const HELP: &str = "Examples:
  hoidla-image build --profile hw-profiles/qemu-q35.toml --hoidlad hoidlad --site public/site.txt --name 2026-11 --out hoidla.unsigned.efi
  hoidla-image sign hoidla.unsigned.efi --boot-key keys --out hoidla.efi
  hoidla-image manifest hoidla.efi --authority-key keys/authority.key --out manifest.txt
  hoidla-image stick hoidla.efi --manifest manifest.txt --out hoidla.img
  hoidla-image inspect hoidla.img --authority '1a2b 3c4d 5e6f 7081 92a3 b4c5'
Exit code 0: done, or whole. 1: checked, and the answer is no. 2: error.";

/// Builds, signs, writes and inspects boot images.
#[derive(Parser)]
#[command(name = "hoidla-image", version, disable_help_subcommand = true, after_help = HELP)]
pub struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Ingredients {
    /// The hardware profile.
    #[arg(long, value_name = "FILE")]
    profile: PathBuf,
    /// The program, built for release.
    #[arg(long, value_name = "FILE")]
    hoidlad: PathBuf,
    /// The site file, signed or as the authority edits it: the authority's key goes into the image.
    #[arg(long, value_name = "FILE")]
    site: PathBuf,
    /// The release's name.
    #[arg(long)]
    name: Name,
    /// Which packages: versions and hashes.
    #[arg(long, value_name = "FILE", default_value = LOCK)]
    lock: PathBuf,
    /// Where fetched packages are kept.
    #[arg(long, value_name = "FOLDER", default_value = "target/packages")]
    packages: PathBuf,
}

const LOCK: &str = "image/packages.toml";

#[derive(Subcommand)]
enum Command {
    /// Build the unsigned image.
    Build {
        #[command(flatten)]
        ingredients: Ingredients,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a boot key: boot.key under a passphrase; boot.crt and *.auth for the machines.
    Key {
        /// Where to; at home, on the offline machine.
        folder: PathBuf,
        /// Its name, as the firmware's setup screen shows it.
        #[arg(long)]
        name: Name,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Sign an image with the boot key; the same image gives the same bytes each time.
    Sign {
        /// The unsigned image.
        image: PathBuf,
        /// The folder with boot.key and boot.crt.
        #[arg(long, value_name = "FOLDER")]
        boot_key: PathBuf,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Sign the manifest of a signed image with the authority's key.
    Manifest {
        /// The signed image.
        image: PathBuf,
        /// The authority's key file.
        #[arg(long, value_name = "FILE")]
        authority_key: PathBuf,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Write the stick's bytes to a file.
    Stick {
        /// The signed image.
        image: PathBuf,
        /// Its manifest.
        #[arg(long, value_name = "FILE")]
        manifest: PathBuf,
        /// Where to.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show and verify an image or a stick.
    Inspect {
        /// The image, signed or not, or the stick.
        file: PathBuf,
        /// The manifest of an image that lies by itself; a stick carries its own.
        #[arg(long, value_name = "FILE")]
        manifest: Option<PathBuf>,
        /// The home authority's digits, from a source that you trust: 24 of 0-9a-f.
        #[arg(long, value_name = "DIGITS")]
        authority: Option<String>,
    },
    /// Print the registers that a release approves, as hoidla-provision takes them.
    Pcrs {
        /// The image, signed or not, or the stick.
        file: PathBuf,
    },
    /// Write the lock file anew, with what the archive has today.
    Refresh {
        /// The lock file.
        #[arg(long, value_name = "FILE", default_value = LOCK)]
        lock: PathBuf,
    },
}

/// Does what was asked.
///
/// # Errors
/// If it can't be done, or can't be told.
pub fn run(arguments: &Arguments) -> Result<Outcome> {
    let output = &arguments.output;
    match &arguments.command {
        Command::Build { ingredients, out } => build(ingredients, out, output)?,
        Command::Key { folder, name, passphrase } => key(folder, name, passphrase, output)?,
        Command::Sign { image, boot_key, out, passphrase } => sign_image(image, boot_key, out, passphrase, output)?,
        Command::Manifest { image, authority_key, out, passphrase } => sign_manifest(image, authority_key, out, passphrase, output)?,
        Command::Stick { image, manifest, out } => write_stick(image, manifest, out, output)?,
        Command::Inspect { file, manifest, authority } => return inspect(file, manifest.as_deref(), authority.as_deref(), output),
        Command::Pcrs { file } => pcrs(file)?,
        Command::Refresh { lock } => refresh(lock, output)?,
    }
    Ok(Outcome::Done)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file whole, or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let put = || {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        let beside = path.with_extension("new");
        fs::write(&beside, bytes)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)
    };
    put().with_context(|| format!("cannot write {}", path.display()))
}

fn opened(path: &Path) -> Result<Inside> {
    Inside::of(&read(path)?).with_context(|| path.display().to_string())
}

fn build(from: &Ingredients, out: &Path, output: &Output) -> Result<()> {
    let site = site(&from.site).with_context(|| from.site.display().to_string())?;
    let key = VerifyingKey::from_sec1(&site.authority.0)?;
    let lock = Lock::parse(&read_text(&from.lock)?).with_context(|| from.lock.display().to_string())?;
    let profile = read_text(&from.profile)?;
    fs::create_dir_all(&from.packages).with_context(|| format!("cannot write {}", from.packages.display()))?;
    let recipe = Recipe {
        release: from.name.clone(),
        development: site.development,
        authority: &site.authority,
        profile: &profile,
        program: &read(&from.hoidlad)?,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let built = compose::build(&recipe, &lock, &Archive::at(&from.packages))?;
    write(out, &built.image)?;
    for wish in &built.firmware {
        output.say(format!("note: {wish}: a module may ask for this firmware file, and the image hasn't got it"));
    }
    let mut screen = Screen::new();
    screen.heading(&format!("Built: {}", from.name)).field("file", &out.display().to_string());
    screen.field("size", &human::bytes(built.image.len() as u64)).field("modules", &built.modules.len().to_string());
    screen.field("for", &from.profile.display().to_string()).field("authority", &fingerprint::of_key(&key)).gap();
    screen.words("Next, where the boot key is: hoidla-image sign");
    let value = json!({ "file": out, "bytes": built.image.len(), "modules": built.modules, "builtin": built.builtin, "firmware": built.firmware, "software": built.software });
    output.result(&value, screen.text())
}

/// A site file, signed or as the authority edits it. Whose key went into an image is checked
/// again where its manifest is signed, under the authority's key itself.
fn site(path: &Path) -> Result<Site> {
    let bytes = read(path)?;
    let Ok(claimed) = sign::read_unverified::<Site>(&bytes) else {
        return Ok(statement::parse_edited(std::str::from_utf8(&bytes)?)?);
    };
    let key = VerifyingKey::from_sec1(&claimed.statement.authority.0)?;
    Ok(sign::open_edited(&bytes, Some(AUTHORITY_NAME), &key)?.statement)
}

fn key(folder: &Path, name: &Name, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    BootKey::generate(folder, name, passphrase)?;
    let certificate = boot_key::certificate_file(folder);
    let digits = manifest::boot_key_digits(&read(&certificate)?);
    let text = format!(
        "A boot key was made. {} and the three .auth files beside it go to the machines, on their sticks; boot.key stays here.\n\
         boot key {digits}\nnext: write these digits on the paper that goes with the stick; the machine shows them, and asks.",
        certificate.display()
    );
    output.result(&json!({ "certificate": certificate, "digits": digits }), text)
}

fn sign_image(image: &Path, folder: &Path, out: &Path, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    opened(image)?;
    let key = BootKey::open(folder, passphrase)?;
    let signed = authenticode::attach(&read(image)?, &key)?;
    let inside = Inside::of(&signed)?;
    write(out, &signed)?;
    output.result(&json!({ "file": out, "signed": inside.signed }), format!("Signed: {}", out.display()))
}

fn sign_manifest(image: &Path, authority_key: &Path, out: &Path, passphrase: &PassphraseSource, output: &Output) -> Result<()> {
    let manifest = opened(image)?.manifest()?;
    let closed = KeyFile::parse(&read(authority_key)?)
        .and_then(|k| k.expect(Role::Authority))
        .with_context(|| authority_key.display().to_string())?;
    let keys = AuthorityKeys::from_seed(&closed.open(passphrase.existing("the authority")?.as_str())?);
    let note = keys.statements.sign_statement(AUTHORITY_NAME, &manifest);
    let file = read(image)?;
    let same = Inside::of(&file)?.expect_manifest(note.as_bytes(), &file);
    same.next("build the image with a site file of this authority: its key stands in the image")?;
    write(out, note.as_bytes())?;
    output.result(&json!({ "file": out, "manifest": manifest }), format!("Signed: {}", out.display()))
}

fn write_stick(image: &Path, manifest: &Path, out: &Path, output: &Output) -> Result<()> {
    let (file, manifest) = (read(image)?, read(manifest)?);
    let inside = Inside::of(&file).with_context(|| image.display().to_string())?;
    inside.expect_manifest(&manifest, &file)?;
    let certificate = inside.certificate.context("the image is not signed")?;
    let bytes = stick::write(&Slot { image: file, manifest, certificate })?;
    write(out, &bytes)?;
    let text = format!("Wrote {} ({}). It goes onto a USB stick from its first byte on.", out.display(), human::bytes(bytes.len() as u64));
    output.result(&json!({ "file": out, "bytes": bytes.len() }), text)
}

fn pcrs(file: &Path) -> Result<()> {
    let file = File::read(read(file)?)?;
    let inside = Inside::of(file.image())?;
    let approved = inside.pcrs.iter().filter(|p| [4, 11, 12, 13].contains(&p.index));
    let map: Map<String, Value> = approved.map(|p| (p.index.to_string(), json!(p.value))).collect();
    println!("{}", serde_json::to_string_pretty(&map)?);
    Ok(())
}

fn refresh(path: &Path, output: &Output) -> Result<()> {
    let lock = archive::today()?;
    write(path, lock.write().as_bytes())?;
    let names: Vec<_> = lock.packages.iter().map(|p| format!("{} {}", p.name, p.version)).collect();
    let text = format!("{}\nNext: build, try and sign a new release.", names.join("\n"));
    output.result(&json!({ "file": path, "packages": names }), text)
}

fn inspect(path: &Path, manifest: Option<&Path>, digits: Option<&str>, output: &Output) -> Result<Outcome> {
    let bytes = read(path)?;
    let manifest = manifest.map(read).transpose()?;
    match judged(bytes, manifest, digits) {
        Ok((inside, proven, not)) => {
            output.result(&as_json(&inside, &proven, &not), as_text(&inside, &proven, &not))?;
            Ok(Outcome::Done)
        }
        Err(e) => {
            let why = format!("{e:#}");
            let text = format!("NO\nwhy:\n  - {}\nstart nothing from it, and tell the authority", hoidla_cli::screen::plain(&why));
            output.result(&json!({ "verdict": "no", "why": [why] }), text)?;
            Ok(Outcome::No)
        }
    }
}

/// What was found inside, what was proven of it, and what not.
fn judged(bytes: Vec<u8>, manifest: Option<Vec<u8>>, digits: Option<&str>) -> Result<(Inside, Vec<String>, Vec<String>)> {
    let file = File::read(bytes)?;
    let inside = Inside::of(file.image())?;
    let (mut proven, mut not) = (Vec::new(), Vec::new());
    let manifest = match &file {
        File::Stick(slot) => {
            let same = inside.certificate.as_ref() == Some(&slot.certificate);
            ensure!(same, "the certificate on the stick is not the one that the image is signed with");
            proven.push(
                "every byte of the stick, but for the papers on it, follows from the image, its manifest and its certificate".to_owned(),
            );
            Some(slot.manifest.clone())
        }
        File::Image(_) => manifest,
    };
    match &inside.certificate {
        Some(_) => proven.push("the image is as it was when the boot key signed it".to_owned()),
        None => not.push("anything about who made it: it is not signed, and no machine with Secure Boot starts it".to_owned()),
    }
    match manifest {
        Some(note) => {
            inside.expect_manifest(&note, file.image())?;
            proven.push("the authority in the image signed its manifest: hashes, registers, software".to_owned());
        }
        None => not.push("that an authority approved it: no manifest was given (--manifest)".to_owned()),
    }
    let own = fingerprint::of_key(&VerifyingKey::from_sec1(&inside.authority)?);
    match digits {
        Some(digits) => {
            ensure!(fingerprint::same(digits, &own), "it is the image of another authority: {own}");
            proven.push("the authority is the one whose digits you gave".to_owned());
        }
        None => not.push(format!("whose authority it is: compare its digits, {own}, or give yours with --authority")),
    }
    not.push("that a machine runs it: that, quotes tell".to_owned());
    Ok((inside, proven, not))
}

fn as_json(inside: &Inside, proven: &[String], not: &[String]) -> Value {
    json!({
        "verdict": "whole", "proven": proven, "not_proven": not,
        "name": inside.note.name, "development": inside.note.development, "profile": inside.profile.name,
        "unsigned": inside.unsigned, "signed": inside.signed, "cmdline": inside.cmdline, "modules": inside.modules, "stick_modules": inside.stick_modules,
        "pcrs": inside.pcrs.iter().map(|p| (p.index.to_string(), json!(p.value))).collect::<Map<_, _>>(),
        "software": inside.note.software,
    })
}

fn as_text(inside: &Inside, proven: &[String], not: &[String]) -> String {
    let mut screen = Screen::new();
    let kind = if inside.note.development { " (development: for drills only)" } else { "" };
    screen.heading(&format!("{}{kind}", inside.name()));
    screen.field("for", inside.profile.title.as_str());
    screen.field("command line", &inside.cmdline).field("modules", &inside.modules.join(" "));
    screen.field("for a stick", &inside.stick_modules.join(" "));
    screen.gap();
    let signed = inside.signed.map_or("not signed".to_owned(), |h| h.to_string());
    let mut rows = vec![vec!["unsigned".to_owned(), inside.unsigned.to_string()], vec!["signed".to_owned(), signed]];
    rows.extend(inside.pcrs.iter().map(|p| vec![format!("PCR {}", p.index), p.value.to_string()]));
    screen.table(&["what", "SHA-256"], &rows).gap();
    let rows: Vec<_> = inside.note.software.iter().map(|s| vec![s.name.clone(), s.version.clone()]).collect();
    screen.table(&["software", "version"], &rows).gap().words("Proven:");
    proven.iter().for_each(|p| _ = screen.item(p));
    screen.words("Not proven:");
    not.iter().for_each(|p| _ = screen.item(p));
    screen.text().to_owned()
}
