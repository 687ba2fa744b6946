//! The unified kernel image: systemd's boot stub with kernel, initramfs and command line as
//! sections of one PE file, which firmware checks and measures as one.
//!
//! Promises: user space only, no clock, no padding that isn't zero; the stub's symbols and
//! checksum are left out. There is always a `.cmdline`: with it, and Secure Boot, the stub of
//! version 252 ignores a command line that a boot entry gives.

use anyhow::{Context, Result, ensure};
use hoidla_verify::pe::Image;

/// A page: where sections begin in memory.
const PAGE: usize = 4096;
/// What sections are aligned to in the file, as the stub has it.
const SECTOR: usize = 512;
const SECTION: usize = 40;
/// IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ.
const READ_ONLY_DATA: u32 = 0x4000_0040;
/// What the stub of version 252 says of itself in `.sdmagic`.
const STUB: &[u8] = b"#### LoaderInfo: systemd-stub 252";

/// What an image is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// systemd's boot stub.
    pub stub: &'a [u8],
    /// Debian's signed kernel.
    pub kernel: &'a [u8],
    /// The packed initramfs.
    pub initramfs: &'a [u8],
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// What firmware and people see as its name, in the form of os-release(5).
    pub os_release: &'a str,
}

/// The unsigned image.
///
/// # Errors
/// If the stub is another than the one whose behaviour is known, or a part can't be one.
pub fn assemble(parts: &Parts<'_>) -> Result<Vec<u8>> {
    let (cmdline, kernel) = (parts.cmdline, parts.kernel);
    // The stub turns other characters into blanks before the kernel measures them.
    ensure!(!cmdline.is_empty() && cmdline.bytes().all(|b| (0x20..0x7f).contains(&b)), "a command line is one line of plain ASCII");
    ensure!(kernel.get(0x202..0x206) == Some(b"HdrS") && kernel.starts_with(b"MZ"), "this is no kernel that firmware can start");
    let mut writer = Writer::of(parts.stub)?;
    writer.section(".osrel", parts.os_release.as_bytes())?;
    writer.section(".cmdline", cmdline.as_bytes())?;
    writer.section(".linux", kernel)?;
    writer.section(".initrd", parts.initramfs)?;
    let out = writer.out;
    Image::parse(&out).context("the image that was just written can't be read")?;
    Ok(out)
}

struct Writer {
    out: Vec<u8>,
    /// Where the COFF header begins.
    coff: usize,
    /// Where the next section begins in memory.
    memory: usize,
}

impl Writer {
    /// The stub, ready for more sections.
    fn of(stub: &[u8]) -> Result<Self> {
        let bare = without_symbols(stub)?;
        let image = Image::parse(&bare).context("the boot stub")?;
        let known = image.section(".sdmagic").is_some_and(|s| s.content.starts_with(STUB));
        ensure!(known, "the boot stub is not of systemd 252: what another one measures and heeds must be tried first");
        ensure!(image.signature().is_none() && image.section(".cmdline").is_none(), "the boot stub was changed");
        let last = image.sections().last().context("the boot stub has no sections")?;
        let memory = last.address as usize + last.content.len();
        Ok(Self { coff: at(&bare, 60) as usize + 4, out: bare, memory })
    }

    fn put(&mut self, at: usize, value: usize) -> Result<()> {
        self.out[at..at + 4].copy_from_slice(&u32::try_from(value)?.to_le_bytes());
        Ok(())
    }

    fn section(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let optional = self.coff + 20;
        let count = usize::from(u16::from_le_bytes([self.out[self.coff + 2], self.out[self.coff + 3]]));
        let head = optional + 240 + count * SECTION;
        ensure!(head + SECTION <= at(&self.out, optional + 60) as usize, "the boot stub's headers have no room for {name}");
        let (offset, address) = (self.out.len(), self.memory.next_multiple_of(PAGE));
        self.out.extend(content);
        self.out.resize(self.out.len().next_multiple_of(SECTOR), 0);
        self.memory = address + content.len();

        self.out[head..head + name.len()].copy_from_slice(name.as_bytes());
        for (n, value) in [content.len(), address, self.out.len() - offset, offset].into_iter().enumerate() {
            self.put(head + 8 + 4 * n, value)?;
        }
        self.put(head + 36, READ_ONLY_DATA as usize)?;
        self.out[self.coff + 2..self.coff + 4].copy_from_slice(&u16::try_from(count + 1)?.to_le_bytes());
        self.put(optional + 8, at(&self.out, optional + 8) as usize + self.out.len() - offset)?;
        self.put(optional + 56, self.memory.next_multiple_of(PAGE))
    }
}

fn at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("within headers that were read"))
}

/// The stub without the linker's symbols after its last section, and without a checksum.
fn without_symbols(stub: &[u8]) -> Result<Vec<u8>> {
    ensure!(stub.len() > 1024 && at(stub, 60) < 512, "the boot stub is no program");
    let coff = at(stub, 60) as usize + 4;
    let symbols = at(stub, coff + 8) as usize;
    let mut out = if symbols == 0 { stub.to_vec() } else { stub.get(..symbols).context("the boot stub is cut short")?.to_vec() };
    for field in [coff + 8, coff + 12, coff + 20 + 64] {
        out[field..field + 4].fill(0);
    }
    Ok(out)
}
