//! A small folder with everything in it that makes copying hard.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Result;

/// Names, links, holes, modes, depths; `bytes` of content that does not compress besides.
///
/// # Errors
/// If the disk refuses.
pub fn make(folder: &Path, bytes: u64) -> Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("empty"), "")?;
    fs::write(folder.join("register.csv"), "number,name\n".to_owned() + &"1,an entry of the register\n".repeat(20_000))?;
    fs::write(folder.join(OsStr::from_bytes(b"not \xff\xfe UTF-8")), "a name of bytes, and content that differs from others")?;
    fs::write(folder.join("õ ä ü, with spaces\nand a line"), "a name that scripts fear")?;
    fs::write(folder.join("twin"), "one file of two names, in two places of the folder")?;
    fs::create_dir(folder.join("deep"))?;
    fs::hard_link(folder.join("twin"), folder.join("deep/other twin"))?;
    symlink("register.csv", folder.join("link"))?;
    symlink("/nowhere/at/all", folder.join("dangling link"))?;
    symlink(OsStr::from_bytes(b"\xff"), folder.join("link to bytes"))?;
    with_holes(&folder.join("holes"))?;
    noise(&folder.join("noise"), bytes)?;
    let mut depth = folder.join("deep");
    for level in 0..200 {
        depth.push(if level % 50 == 0 { "level" } else { "l" });
    }
    fs::create_dir_all(&depth)?;
    fs::write(depth.join("bottom"), "two hundred levels down")?;
    fs::create_dir(folder.join("many"))?;
    for i in 0..300 {
        fs::write(folder.join(format!("many/{i}")), format!("small file number {i}, one of three hundred"))?;
    }
    fs::set_permissions(folder.join("register.csv"), PermissionsExt::from_mode(0o640))?;
    fs::set_permissions(folder.join("twin"), PermissionsExt::from_mode(0o4711))?;
    fs::set_permissions(folder.join("many"), PermissionsExt::from_mode(0o1777))?;
    set_times(folder)
}

/// 8 MiB of which all but two stretches are holes, one of them at the end.
fn with_holes(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    file.seek(SeekFrom::Start(1 << 20))?;
    file.write_all(&[7; 5000])?;
    file.seek(SeekFrom::Start(5 << 20))?;
    file.write_all(b"an island")?;
    file.set_len(8 << 20)?;
    Ok(())
}

/// Bytes that no compressor shrinks, the same each time: a xorshift generator's.
pub fn noise(path: &Path, bytes: u64) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..bytes / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// Times before today, with nanoseconds, folders after what is in them.
pub(crate) fn set_times(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            set_times(&entry?.path())?;
        }
    }
    if !meta.is_symlink() {
        let salt = path.file_name().unwrap_or_default().as_bytes().iter().map(|b| u64::from(*b)).sum::<u64>();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_500_000_000 + salt * 1000, 123_456_789);
        File::open(path)?.set_modified(time)?;
    }
    Ok(())
}
