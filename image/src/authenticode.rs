//! Authenticode: the signature that firmware checks under Secure Boot.
//!
//! PKCS#7 SignedData over SpcIndirectDataContent with the image's digest (SHA-256), one signer,
//! RSA PKCS#1 v1.5, no signing time: the same image and key give the same bytes.
//!
//! Promises: [`check`] accepts only what [`attach`] writes, bit for bit, since it writes the
//! structure again from certificate and signature and compares; so nothing can hide in it.
//! Firmware accepts more, and it alone decides what starts.

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use hoidla_format::Hash32;
use hoidla_verify::pe::Image;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    boot_key::BootKey,
    der::{OCTETS, SEQUENCE, SET, context, split, tlv},
};

const SIGNED_DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const CONTENT_TYPE: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const RSA_SHA256: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const SHA256: &[u8] = &[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const DATA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// SPC_INDIRECT_DATA: 1.3.6.1.4.1.311.2.1.4.
const INDIRECT: &[u8] = &[0x06, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
/// SPC_PE_IMAGE_DATA: 1.3.6.1.4.1.311.2.1.15.
const PE_IMAGE: &[u8] = &[0x06, 10, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];
const NULL: &[u8] = &[5, 0];
const ONE: &[u8] = &[2, 1, 1];
/// No flags, and an empty file name: `BIT STRING`, `[0] [2] [0]`.
const PE_DATA: &[u8] = &[0x03, 1, 0, 0xa0, 4, 0xa2, 2, 0x80, 0];

/// Signs an image; an older signature is replaced.
///
/// # Errors
/// If it is no image.
pub fn attach(image: &[u8], key: &BootKey) -> Result<Vec<u8>> {
    let image = Image::parse(image)?;
    let signature = key.sign(&attributes(&image.digest()))?;
    Ok(image.with_signature(&structure(&image.digest(), key.certificate(), &signature)?))
}

/// The certificate (DER) that an image was signed under, if the signature fits.
///
/// # Errors
/// If it is unsigned, the signature isn't the certificate's, or is of another form.
pub fn check<'a>(image: &Image<'a>) -> Result<&'a [u8]> {
    let pkcs7 = image.signature().context("the image is not signed")?;
    let (certificate, signature) = pieces(pkcs7).context("the signature is not as hoidla-image writes it")?;
    ensure!(structure(&image.digest(), certificate, signature)? == pkcs7, "the image was changed after it was signed");
    let (_, parsed) = X509Certificate::from_der(certificate).context("the signer's certificate")?;
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &parsed.public_key().subject_public_key.data);
    if key.verify(&attributes(&image.digest()), signature).is_err() {
        bail!("the signature is not that of the certificate in it");
    }
    // A boot key's certificate is signed with the key itself, so that nobody changes a byte of it.
    let (body, own) = (parsed.tbs_certificate.as_ref(), &parsed.signature_value.data);
    let same = tlv(SEQUENCE, &[body, &algorithm(RSA_SHA256), &tlv(3, &[&[0], own])]) == certificate;
    let own = same && key.verify(body, own).is_ok();
    ensure!(own, "the certificate in the signature was changed, or is not a boot key's");
    Ok(certificate)
}

fn algorithm(id: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[id, NULL])
}

/// The content of SpcIndirectDataContent.
fn indirect(digest: &Hash32) -> Vec<u8> {
    let data = tlv(SEQUENCE, &[PE_IMAGE, &tlv(SEQUENCE, &[PE_DATA])]);
    [data, tlv(SEQUENCE, &[&algorithm(SHA256), &tlv(OCTETS, &[&digest.0])])].concat()
}

/// The authenticated attributes, as the set that is signed.
fn attributes(digest: &Hash32) -> Vec<u8> {
    let hash = Sha256::digest(indirect(digest));
    let kind = tlv(SEQUENCE, &[CONTENT_TYPE, &tlv(SET, &[INDIRECT])]);
    let digest = tlv(SEQUENCE, &[MESSAGE_DIGEST, &tlv(SET, &[&tlv(OCTETS, &[&hash])])]);
    tlv(SET, &[&kind, &digest])
}

/// The whole of it.
fn structure(digest: &Hash32, certificate: &[u8], signature: &[u8]) -> Result<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).context("the signer's certificate")?;
    let mut attributes = attributes(digest);
    attributes[0] = context(0);
    let content = tlv(SEQUENCE, &[INDIRECT, &tlv(context(0), &[&tlv(SEQUENCE, &[&indirect(digest)])])]);
    let signed = signed_data(&content, certificate, &signer(&parsed, &attributes, signature));
    Ok(tlv(SEQUENCE, &[SIGNED_DATA, &tlv(context(0), &[&signed])]))
}

/// SignedData over something that lies beside it, without attributes: as Secure Boot's variables have it.
///
/// # Errors
/// If the key cannot sign.
pub fn detached(content: &[u8], key: &BootKey) -> Result<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(key.certificate()).context("the boot key's certificate")?;
    Ok(signed_data(&tlv(SEQUENCE, &[DATA]), key.certificate(), &signer(&parsed, &[], &key.sign(content)?)))
}

fn signed_data(content: &[u8], certificate: &[u8], signer: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[ONE, &tlv(SET, &[&algorithm(SHA256)]), content, &tlv(context(0), &[certificate]), &tlv(SET, &[signer])])
}

fn signer(certificate: &X509Certificate<'_>, attributes: &[u8], signature: &[u8]) -> Vec<u8> {
    let serial = tlv(2, &[certificate.raw_serial()]);
    let issuer = tlv(SEQUENCE, &[certificate.issuer().as_raw(), &serial]);
    tlv(SEQUENCE, &[ONE, &issuer, &algorithm(SHA256), attributes, &algorithm(RSA), &tlv(OCTETS, &[signature])])
}

/// Certificate and signature out of a structure; everything else is compared.
fn pieces(pkcs7: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, outer, _) = split(pkcs7)?;
    let (_, signed, _) = split(split(after(outer, 1)?)?.1)?;
    let (_, certificates, rest) = split(after(signed, 3)?)?;
    let (certificate, _, _) = split(certificates)?;
    let (_, signer, _) = split(split(rest)?.1)?;
    Some((certificate, split(after(signer, 5)?)?.1))
}

/// What follows the first `count` values.
fn after(bytes: &[u8], count: usize) -> Option<&[u8]> {
    (0..count).try_fold(bytes, |rest, _| Some(split(rest)?.2))
}
