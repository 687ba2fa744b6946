//! Disks lost that alone held something: nothing opens over that unless somebody says so.

mod common;

use std::{fs, path::Path};

use common::*;
use hoidlad::{
    daemon::{self, Settings},
    enrol::{Enrol, enrol},
    helper::Helpers,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_only_copy_stops_the_start_until_the_loss_is_accepted() {
    let e = Embassy::new(64 << 20);
    let config = e.state().folder().join("appliance.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "copies = 1\n").unwrap();
    enrol(&e.state(), &Enrol { papers: vec![e.papers()], disk_size: None, format: true }).unwrap();
    e.start().await.stop().await;
    fs::remove_file(e.disk(1)).unwrap();

    let helpers = || Helpers::of(Path::new(PROGRAM));
    let refused = daemon::start(&e.state(), Settings::default(), helpers()).await.err().expect("it does not start");
    assert!(format!("{refused:#}").contains("--accept-loss"), "{refused:#}");
    let running = e.start_with(Settings { accept_loss: true, ..Settings::default() }).await;
    let disks = running.daemon.store.disks().await.unwrap();
    assert_eq!(disks.iter().filter(|d| d.path.is_some()).count(), 1);
    running.stop().await;
    e.start().await.stop().await; // it was accepted once, and holds
}
