//! Disks that leave: which are erased, and what the certificate proves.

mod common;

use std::fs;

use common::*;
use hoidla_format::frame::Chain;
use hoidla_uring::DiskFile;
use hoidla_verify::{Certificate, Known, Refusal};
use hoidlad::{erase::Eraser, scrub};

const SIZE: u64 = 64 << 20;

fn known(e: &Embassy) -> Known {
    let papers: Vec<Vec<u8>> = fs::read_dir(e.state().papers()).unwrap().map(|p| fs::read(p.unwrap().path()).unwrap()).collect();
    let identity = fs::read(e.state().identity()).unwrap();
    Known::gather(&e.home.verifying(), papers.iter().chain([&identity]).map(Vec::as_slice)).unwrap()
}

async fn with_something(e: &Embassy) {
    let agent = e.home.good_agent("land");
    let running = e.start().await;
    let mut w = Writing::new(1);
    let mut c = running.enter(&agent.door).await.unwrap();
    let opened = open_stream(&mut c, &agent.dataset, &w, Chain::EMPTY).await.unwrap();
    let header = agent.header(&mut w, &e.vaults[0]);
    append(&mut c, &opened, 1, 0, &header).await.unwrap();
    drop(c);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_given_up_erased_and_certified_but_never_the_last() {
    let (e, quiet) = (Embassy::new(SIZE), hoidla_cli::Output::default());
    with_something(&e).await;
    let before: Vec<Vec<u8>> = (0..2).map(|n| fs::read(e.disk(n)).unwrap()).collect();
    let eraser = Eraser::new(&e.state()).unwrap();
    let found = eraser.look(2).unwrap();
    assert!(found.was.contains("a disk of this store") && found.bytes == SIZE, "{found:?}");
    assert!(eraser.look(0).is_err() && eraser.look(3).is_err());

    let no = eraser.erase(&found, false, &quiet).await.unwrap_err().to_string();
    assert!(no.contains("counts as a copy"), "{no}");
    assert_eq!(fs::read(e.disk(1)).unwrap()[8 << 20..], before[1][8 << 20..], "refused, nothing was touched");
    let held = DiskFile::open(&e.disk(1)).unwrap();
    assert!(eraser.look(2).is_err(), "another program has it");
    drop(held);

    let done = eraser.erase(&found, true, &quiet).await.unwrap();
    assert!(fs::read(e.disk(1)).unwrap() == vec![0; SIZE as usize], "all of it is zero");
    let kept = fs::read(&done.file).unwrap();
    let vouched = Certificate::parse(&kept).unwrap().check(&known(&e)).unwrap();
    let says = done.certificate.says();
    assert_eq!(
        (vouched.origin.as_str(), says.tray, says.bytes, says.was.as_str()),
        ("hoidla/testland/rack-1", 2, SIZE, found.was.as_str())
    );
    assert!(says.log_size > 0);
    let forged = String::from_utf8(kept).unwrap().replace("tray = 2", "tray = 1");
    let forged = Certificate::parse(forged.as_bytes()).unwrap();
    assert_eq!(forged.check(&known(&e)).unwrap_err(), Refusal::Text(vouched.origin).into());

    // The other one holds everything now, and stays.
    fs::remove_file(e.disk(1)).unwrap();
    let last = eraser.look(1).unwrap();
    let no = eraser.erase(&last, true, &quiet).await.unwrap_err().to_string();
    assert!(no.contains("nothing else holds"), "{no}");
    let all = scrub::scrub(&e.state(), &quiet).await.unwrap();
    assert!(all.is_whole() && all.records > 0, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_leaves_is_erased_and_its_tpm_opens_nothing() {
    let (e, quiet) = (Embassy::new(SIZE), hoidla_cli::Output::default());
    with_something(&e).await;
    let eraser = Eraser::new(&e.state()).unwrap();
    let done = eraser.erase_all(&eraser.look_everywhere().unwrap(), &quiet).await.unwrap();
    assert_eq!(done.len(), 2);
    for (n, d) in done.iter().enumerate() {
        d.certificate.check(&known(&e)).unwrap();
        assert!(fs::read(e.disk(n)).unwrap() == vec![0; SIZE as usize]);
    }
    let halves = fs::read_dir(e.state().tpm()).unwrap().filter(|f| f.as_ref().unwrap().file_name().to_string_lossy().starts_with("half-"));
    assert_eq!(halves.count(), 0);
    let papers = vec![e.papers()];
    let again = hoidlad::enrol::enrol(&e.state(), &hoidlad::enrol::Enrol { papers, disk_size: None, format: true });
    let why = again.unwrap_err().to_string();
    assert!(why.contains("retired"), "with the same papers and halves nothing begins again: {why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_leaves_is_erased_to_the_end_although_it_was_broken_off() {
    let (e, quiet) = (Embassy::new(SIZE), hoidla_cli::Output::default());
    with_something(&e).await;
    let eraser = Eraser::new(&e.state()).unwrap();
    let found = eraser.look_everywhere().unwrap();
    // Begun long ago, and broken off before the first byte went: what the machine took since counts.
    let long_ago = format!("version = 1\npowered = 1\nsize = 0\nroot = \"{}\"\n", "0".repeat(64));
    fs::write(e.state().leaving(), long_ago).unwrap();
    // Both disks are gone when it is broken off, and the TPM still opens vaults.
    let mut other = found[1].clone();
    other.bytes += 1;
    let broken_off = [found[0].clone(), found[1].clone(), other];
    let why = eraser.erase_all(&broken_off, &quiet).await.unwrap_err().to_string();
    assert!(why.contains("another disk than before"), "{why}");
    assert!((0..2).all(|n| fs::read(e.disk(n)).unwrap() == vec![0; SIZE as usize]));

    let eraser = Eraser::new(&e.state()).unwrap();
    let done = eraser.erase_all(&eraser.look_everywhere().unwrap(), &quiet).await.unwrap();
    assert!(done.iter().all(|d| d.certificate.says().log_size > 0 && d.certificate.says().was == "a blank disk"));
    let certificates = hoidlad::erase::certificates(&e.state()).unwrap();
    assert_eq!(certificates.keys().map(String::as_str).collect::<Vec<_>>(), ["erased-rack-1-1.txt", "erased-rack-1-2.txt"]);
    for text in certificates.values() {
        Certificate::parse(text).unwrap().check(&known(&e)).unwrap();
    }

    // What an unknown version says is not believed.
    let text = fs::read_to_string(e.state().leaving()).unwrap();
    fs::write(e.state().leaving(), text.replace("version = 1", "version = 2")).unwrap();
    let eraser = Eraser::new(&e.state());
    assert!(eraser.is_err() || eraser.unwrap().erase_all(&found, &quiet).await.is_err());
}
