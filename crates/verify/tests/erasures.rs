//! Certificates of erasure as an attacker would have them: each with one thing wrong.
#![forbid(unsafe_code)]

use hoidla_format::{Hash32, Moment, statement, statements::Erased, statements::Site};
use hoidla_log::Says;
use hoidla_papers::{Log, Office, SoftAppliance, name};
use hoidla_verify::{Certificate, ErasedError, Known, Refusal};

struct World {
    office: Office,
    site: Site,
    one: SoftAppliance,
    two: SoftAppliance,
}

impl World {
    fn new() -> Self {
        let office = Office::new(1);
        let site = office.site("lux", &["lux-1", "lux-2"]);
        let (one, two) = (SoftAppliance::new(&site, "lux-1", 2), SoftAppliance::new(&site, "lux-2", 3));
        Self { office, site, one, two }
    }

    fn known(&self, of: &[&SoftAppliance]) -> Known {
        let papers = self.office.papers(&self.site, of);
        Known::gather(&self.office.authority.verifying_key(), papers.iter().map(String::as_bytes)).unwrap()
    }

    fn check(&self, certificate: &Certificate) -> Result<String, ErasedError> {
        certificate.check(&self.known(&[&self.one, &self.two])).map(|v| v.origin)
    }
}

fn text() -> String {
    statement::write(&Erased {
        site: name("lux"),
        appliance: name("lux-1"),
        tray: 2,
        serial: String::new(),
        was: "a disk of this store, place 1".into(),
        seen: Hash32([7; 32]),
        bytes: 1 << 27,
        powered: 864_000,
        log_size: 5,
        log_root: Hash32([8; 32]),
        created: Moment::from_seconds(1_800_000_000),
    })
}

/// Says this of the text under the name, by this TPM.
fn certificate(who: &SoftAppliance, says: Says, text: &str, under: &str) -> Certificate {
    Certificate::new(text.to_owned(), who.line(says, text, under)).unwrap()
}

#[test]
fn an_erasure_is_believed_under_its_appliances_key_alone() {
    let w = World::new();
    let origin = w.one.origin();
    let good = certificate(&w.one, Says::Erased, &text(), &origin);
    assert_eq!(w.check(&good), Ok(origin.clone()));
    assert_eq!(Certificate::parse(good.write().as_bytes()).unwrap(), good);
    let refused = |c: &Certificate| w.check(c).unwrap_err();
    let by_two = certificate(&w.two, Says::Erased, &text(), &origin);
    assert_eq!(refused(&by_two), Refusal::Stranger(origin.clone()).into());
    let as_two = certificate(&w.two, Says::Erased, &text(), &w.two.origin());
    assert_eq!(refused(&as_two), Refusal::Unsigned(origin.clone()).into());
    assert!(good.check(&w.known(&[&w.two])).unwrap_err().cannot_tell(), "without its papers nothing can be told");
}

#[test]
fn a_quote_of_another_kind_is_no_erasure_nor_the_other_way_round() {
    let w = World::new();
    let origin = w.one.origin();
    for says in [Says::Mine, Says::Seen] {
        assert_eq!(w.check(&certificate(&w.one, says, &text(), &origin)), Err(Refusal::Text(origin.clone()).into()));
    }
    // The quote of a real checkpoint, moved below an erasure.
    let signed = Log::of(5, 1).signed(&w.one, 17);
    let moved = Certificate::new(text(), signed.note().signatures[0].clone()).unwrap();
    assert_eq!(w.check(&moved), Err(Refusal::Text(origin.clone()).into()));
    // And an erasure's quote below a checkpoint.
    let head = Log::of(5, 1).head(&w.one, 5, 17).to_string();
    let wrong = w.one.note(&head, &w.one.quote(&w.one.attest(Says::Erased.qualifying(&head))));
    assert_eq!(hoidla_verify::checkpoint::check(&wrong, &w.known(&[&w.one])), Err(Refusal::Text(origin)));
}

#[test]
fn every_flipped_byte_and_cut_is_refused() {
    let w = World::new();
    let known = w.known(&[&w.one]);
    let bytes = certificate(&w.one, Says::Erased, &text(), &w.one.origin()).write().into_bytes();
    let believed = |bytes: &[u8]| Certificate::parse(bytes).and_then(|c| c.check(&known)).is_ok();
    assert!(believed(&bytes));
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert!(!believed(&other), "flipped at {at}");
        assert!(!believed(&bytes[..at]), "cut at {at}");
    }
    let line = String::from_utf8(bytes.clone()).unwrap().lines().last().unwrap().to_owned() + "\n";
    assert_eq!(Certificate::parse(&[&bytes[..], line.as_bytes()].concat()), Err(ErasedError::Signatures(2)));
}
