//! What proves that bytes are kept: signed checkpoints, quotes, receipts, extensions.

use hoidla_log::{Extension, Quote, Receipt, SignedCheckpoint};
use hoidla_verify::{Attest, Certificate, Created, eventlog::Log, firmware::Launch, pe::Image};

pub fn signed_checkpoint(bytes: &[u8]) -> bool {
    let Ok(signed) = SignedCheckpoint::parse(bytes) else { return false };
    assert_eq!(signed.write().as_bytes(), bytes, "one encoding");
    for line in &signed.note().signatures {
        if let Ok(quote) = Quote::from_line(line) {
            assert_eq!(quote.line(&line.name, &[0; 34]).bytes, line.bytes, "one encoding");
        }
    }
    true
}

pub fn erased(bytes: &[u8]) -> bool {
    let Ok(certificate) = Certificate::parse(bytes) else { return false };
    assert_eq!(certificate.write().as_bytes(), bytes, "one encoding");
    true
}

pub fn attest(bytes: &[u8]) -> bool {
    let Ok(attest) = Attest::parse(bytes) else { return false };
    assert_eq!(attest.marshal(), bytes, "one encoding");
    true
}

pub fn created(bytes: &[u8]) -> bool {
    let Ok(created) = Created::parse(bytes) else { return false };
    assert_eq!(created.marshal(), bytes, "one encoding");
    true
}

pub fn receipt(bytes: &[u8]) -> bool {
    let Ok(receipt) = Receipt::parse(bytes) else { return false };
    assert_eq!(receipt.write().as_bytes(), bytes, "one encoding");
    true
}

pub fn extension(bytes: &[u8]) -> bool {
    let Ok(extension) = Extension::parse(bytes) else { return false };
    assert_eq!(extension.write().as_bytes(), bytes, "one encoding");
    _ = extension.follows(extension.checkpoint.head());
    true
}

pub fn boot_image(bytes: &[u8]) -> bool {
    let Ok(image) = Image::parse(bytes) else { return false };
    let unsigned = image.unsigned();
    let bare = Image::parse(&unsigned).expect("without its signature it is an image still");
    assert_eq!(bare.digest(), image.digest());
    if let Some(signature) = image.signature() {
        assert_eq!(bare.with_signature(signature), bytes, "one encoding");
    }
    let _ = hoidla_verify::manifest::registers(&image, &[], &[]);
    true
}

pub fn event_log(bytes: &[u8]) -> bool {
    let Ok(log) = Log::parse(bytes) else { return false };
    let launch = Launch::of(&log, &[]);
    let recorded: Vec<_> = launch.to_record().into_iter().map(|(digest, _)| digest).collect();
    let surprises = Launch::of(&log, &recorded).surprises(&recorded);
    assert_eq!(surprises.len(), usize::from(launch.came_back() > 0), "what was recorded is no surprise: {surprises:?}");
    log.replay().len() <= 24
}
