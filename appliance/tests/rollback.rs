//! Older papers, put back by whoever has the machine's own disk, stay refused.

mod common;

use std::{fs, path::Path};

use common::*;
use hoidla_tpm::Tpm;
use hoidla_verify::{Terms, release};
use hoidlad::{
    daemon::{self, Settings},
    enrol::{Enrol, enrol},
    helper::Helpers,
    identify::{digits, identify},
};

/// The authority's newer site file, and a release that follows the first.
fn newer_papers(e: &mut Embassy) {
    e.home.site.serial += 1;
    fs::write(e.papers().join("site.txt"), e.home.sign(&e.home.site)).unwrap();
    let terms = Terms {
        site: e.home.site_name.clone(),
        name: name("drill-2"),
        development: true,
        epoch: e.identity.release_counter + 1,
        pcrs: Tpm::open(e.tpm.tcti()).unwrap().pcr_read(&[4, 11, 12, 13]).unwrap(),
        vaults: DATASETS.map(|d| (name(d), 1)).to_vec(),
    };
    fs::write(e.papers().join("release.txt"), e.home.sign(&release::approve(&e.home.release_key, terms).unwrap())).unwrap();
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(|f| f.unwrap().path()) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

async fn start(e: &Embassy) -> Result<(), String> {
    daemon::start(&e.state(), Settings::default(), Helpers::of(Path::new(PROGRAM))).await.map(drop).map_err(|e| format!("{e:#}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_papers_put_back_are_refused() {
    let mut e = Embassy::new(64 << 20);
    let (kept, old, brought) = (e.state().papers(), e.folder.path().join("old"), e.folder.path().join("brought"));
    copy(&kept, &old);
    copy(&e.papers(), &brought);
    newer_papers(&mut e);
    enrol(&e.state(), &Enrol { papers: vec![e.papers()], ..Enrol::default() }).unwrap();
    let new = e.folder.path().join("new");
    copy(&kept, &new);

    // The site file of before, with all that was beside it.
    copy(&old, &kept);
    let why = start(&e).await.unwrap_err();
    assert!(why.contains("serial 5") && why.contains("serial 6"), "{why}");
    // An enrolment that finds nothing kept.
    fs::remove_dir_all(&kept).unwrap();
    let why = enrol(&e.state(), &Enrol { papers: vec![brought.clone()], ..Enrol::default() }).unwrap_err().to_string();
    assert!(why.contains("serial 5"), "{why}");

    // The newest site file, with the release of before.
    fs::copy(e.papers().join("site.txt"), brought.join("site.txt")).unwrap();
    let why = enrol(&e.state(), &Enrol { papers: vec![brought.clone()], ..Enrol::default() }).unwrap_err().to_string();
    assert!(why.contains("retired"), "{why}");
    copy(&brought, &kept);
    let why = start(&e).await.unwrap_err();
    assert!(why.contains("retired"), "{why}");

    copy(&new, &kept);
    start(&e).await.expect("the newest papers are in force");
}

#[test]
fn asked_again_the_identity_is_the_same_though_counters_have_grown() {
    let e = Embassy::new(64 << 20);
    let site = fs::read(e.papers().join("site.txt")).unwrap();
    let again = identify(&e.state(), &site, &name("rack-1")).unwrap();
    assert_eq!(again, e.identity, "the enrolment signs its hash");
    assert_eq!(digits(&again).replace(' ', "").len(), 24);
    // Without what was written, it counts from where the counters stand.
    fs::remove_file(e.state().identity()).unwrap();
    let anew = identify(&e.state(), &site, &name("rack-1")).unwrap();
    assert_eq!(anew.site_counter, e.identity.site_counter + u64::from(e.home.site.serial));
    assert_ne!(digits(&anew), digits(&again));
}
