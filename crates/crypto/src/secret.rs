//! Secret bytes in memory of their own.
//!
//! Promises: a [`Secret`] sits alone on its own page, locked into RAM where the
//! system permits it, is never moved, and is wiped before the page is given back.
//! It has no `Debug`, `Clone` or `Serialize`; equality takes constant time.
//! Functions that are lent a secret may leave copies on the stack; those of this
//! crate run under [`then_wipe_stack`], and a test reads all memory afterwards.
//! It doesn't promise that for what other crates do with lent bytes.

use region::LockGuard;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// The largest secret, and the page it sits on.
const PAGE: usize = 4096;

#[repr(align(4096))]
struct Page([u8; PAGE]);

/// `N` secret bytes, at most 4,096.
pub struct Secret<const N: usize> {
    // Dropped first, so that the page is still ours when it is unlocked.
    lock: Option<LockGuard>,
    page: Box<Page>,
}

impl<const N: usize> Secret<N> {
    const FITS: () = assert!(N <= PAGE, "a secret fits one page");

    fn zeroed() -> Self {
        let () = Self::FITS;
        let page = Box::new(Page([0; PAGE]));
        // Refused beyond RLIMIT_MEMLOCK: the secret works unlocked, and `is_locked` says so.
        let lock = region::lock(page.0.as_ptr(), PAGE).ok();
        Self { lock, page }
    }

    /// A secret whose bytes `fill` writes in place.
    pub fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self::zeroed();
        fill(secret.bytes_mut());
        secret
    }

    /// A secret whose bytes `fill` writes in place, unless it fails.
    pub fn try_filled<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroed();
        fill(secret.bytes_mut())?;
        Ok(secret)
    }

    /// A fresh random secret.
    ///
    /// # Panics
    /// If the system has no randomness to give.
    pub fn random() -> Self {
        Self::filled(|b| crate::random(b))
    }

    /// Takes the bytes over and wipes where they were.
    pub fn from_bytes_wiping(bytes: &mut [u8; N]) -> Self {
        let secret = Self::filled(|b| b.copy_from_slice(bytes));
        bytes.zeroize();
        secret
    }

    /// Takes the bytes over and wipes where they were; `None` if there are not exactly `N` (wiped all the same).
    pub fn from_slice_wiping(bytes: &mut [u8]) -> Option<Self> {
        let secret = (bytes.len() == N).then(|| Self::filled(|b| b.copy_from_slice(bytes)));
        bytes.zeroize();
        secret
    }

    /// The same bytes on a page of their own, made on purpose.
    pub fn duplicate(&self) -> Self {
        Self::filled(|b| b.copy_from_slice(self.expose()))
    }

    /// Lends the bytes.
    pub fn expose(&self) -> &[u8; N] {
        self.page.0[..N].first_chunk().expect("a secret fits its page")
    }

    fn bytes_mut(&mut self) -> &mut [u8; N] {
        self.page.0[..N].first_chunk_mut().expect("a secret fits its page")
    }

    /// Whether both hold the same bytes, in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }

    /// Whether the system locked the page into RAM, so that it is never swapped out.
    pub fn is_locked(&self) -> bool {
        self.lock.is_some()
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
    }
}

/// More stack than any operation of this crate uses.
const STACK: usize = 256 * 1024;

/// Runs `f`, then overwrites the stack that it used: libraries of cryptography wipe
/// their values when they are dropped, but not where they were moved from.
#[inline(never)]
pub fn then_wipe_stack<R>(f: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn run<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    let result = run(f);
    wipe_stack();
    result
}

#[inline(never)]
fn wipe_stack() {
    // Begins where `run` began, and is longer than it was deep.
    std::hint::black_box(&mut [0_u8; STACK]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_holds_its_bytes_and_wipes_the_source() {
        let mut source = [7; 32];
        let secret = Secret::from_bytes_wiping(&mut source);
        assert_eq!((secret.expose(), source), (&[7; 32], [0; 32]));
        assert!(secret.ct_eq(&secret.duplicate()));
        assert!(!secret.ct_eq(&Secret::random()));
        let mut short = [7; 31];
        assert!(Secret::<32>::from_slice_wiping(&mut short).is_none());
        assert_eq!(short, [0; 31]);
    }

    #[test]
    fn each_has_a_page_of_its_own() {
        let (a, b) = (Secret::<1>::random(), Secret::<1>::random());
        let page = |s: &Secret<1>| s.expose().as_ptr() as usize;
        assert_eq!(page(&a) % PAGE, 0);
        assert_ne!(page(&a) / PAGE, page(&b) / PAGE);
    }
}
