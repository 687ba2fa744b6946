//! The parts of a profile: each is a type that cannot be wrong.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{Hash32, Name};

/// A type that is written as a short text.
macro_rules! text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

/// A kind of word: its variants with their texts.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $text,)+ })
            }
        }
    };
}

/// A kernel module's name, with underscores, as in /proc/modules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module(String);

text!(Module);

impl FromStr for Module {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let fits = (1..=55).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if fits {
            Ok(Self(s.to_owned()))
        } else {
            Err(format!("{s:?} is no module: use 1 to 55 of A-Z, a-z, 0-9 and _, as /proc/modules does"))
        }
    }
}

impl Module {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A terminal: `tty0`, or a serial port with its speed, `ttyS0,115200`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    device: String,
    speed: Option<u32>,
}

text!(Console);

impl Console {
    /// The name of its device below /dev.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The serial speed, if it is a serial port.
    pub fn speed(&self) -> Option<u32> {
        self.speed
    }
}

impl FromStr for Console {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("{s:?} is no console: use tty0, ttyS0 or ttyS0,115200");
        let (device, speed) = s.split_once(',').map_or((s, None), |(d, s)| (d, Some(s)));
        let rest = device.strip_prefix("tty").ok_or_else(wrong)?;
        let fits = (1..=12).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_alphanumeric());
        let speed = speed.map(|s| decimal(s).filter(|n| (1200..=4_000_000).contains(n)).ok_or_else(wrong)).transpose()?;
        if fits { Ok(Self { device: device.to_owned(), speed }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.device)?;
        self.speed.map_or(Ok(()), |speed| write!(f, ",{speed}"))
    }
}

/// A number in its one decimal form.
fn decimal(s: &str) -> Option<u32> {
    s.parse().ok().filter(|n: &u32| n.to_string() == s)
}

/// Where on the PCI bus a device is: `0000:00:1f.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

text!(PciAddress);

impl FromStr for PciAddress {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parse = || {
            let (bus, function) = s.split_once('.')?;
            let mut parts = bus.split(':').map(|p| u32::from_str_radix(p, 16).ok());
            let (domain, bus, device) = (parts.next()??, parts.next()??, parts.next()??);
            let function = function.parse::<u8>().ok().filter(|f| *f < 8)?;
            let (bus, device) = (bus.try_into().ok()?, device.try_into().ok().filter(|d: &u8| *d < 32)?);
            Some(Self { domain, bus, device, function }).filter(|a| a.to_string() == s)
        };
        parse().ok_or_else(|| format!("{s:?} is no PCI address: use one like 0000:00:1f.2, as lspci -D writes it"))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

/// Where a disk is plugged in: a PCI device, `0000:00:04.0`, or a port of an AHCI controller,
/// `0000:00:1f.2 port 1`, counted from 1 as the kernel's `port_no` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The device or controller.
    pub pci: PciAddress,
    /// The controller's port.
    pub port: Option<u8>,
}

text!(Place);

impl FromStr for Place {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("{s:?}: a port of a controller is like 0000:00:1f.2 port 1, from 1 to 32");
        match s.split_once(" port ") {
            None => Ok(Self { pci: s.parse()?, port: None }),
            Some((pci, port)) => {
                let port = decimal(port).filter(|p| (1..=32).contains(p)).ok_or_else(wrong)? as u8;
                Ok(Self { pci: pci.parse()?, port: Some(port) })
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pci)?;
        self.port.map_or(Ok(()), |port| write!(f, " port {port}"))
    }
}

/// A network card's own address: `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

text!(Mac);

impl FromStr for Mac {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parts: Option<Vec<u8>> = s.split(':').map(|p| u8::from_str_radix(p, 16).ok()).collect();
        let mac = parts.and_then(|p| <[u8; 6]>::try_from(p).ok()).map(Self).filter(|m| m.to_string() == s);
        mac.ok_or_else(|| format!("{s:?} is no card's address: use one like 52:54:00:12:34:56, in lower case"))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How a network port is found: by where its card is plugged in, or by its own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plug {
    /// By where its card is plugged in.
    Pci(PciAddress),
    /// By its own address.
    Mac(Mac),
}

text!(Plug);

impl FromStr for Plug {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("{s:?} is no port: use a PCI address like 0000:00:03.0, or a card's like 52:54:00:12:34:56");
        s.parse().map(Self::Pci).or_else(|_: String| s.parse().map(Self::Mac)).map_err(|_: String| wrong())
    }
}

impl fmt::Display for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(pci) => pci.fmt(f),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

words! {
    /// What a network port is for.
    Role {
        /// The one TCP port to the data.
        Door = "door",
        /// The host's network, which is only told how the machine is.
        Health = "health",
    }
}

words! {
    /// What kind of TPM it is.
    TpmKind {
        /// Part of the processor or its firmware: no bus to listen on.
        OnDie = "on-die",
        /// A chip of its own: whoever has tools can sit on its bus.
        Discrete = "discrete",
        /// A program: for tests only.
        Software = "software",
    }
}

words! {
    /// How the kernel speaks to the TPM.
    Interface {
        /// Command response buffer.
        Crb = "crb",
        /// The older interface with a FIFO.
        Tis = "tis",
    }
}

words! {
    /// What a custodian may believe of the machine's measurements.
    Assurance {
        /// On-die TPM, fused verified boot, encrypted memory and IOMMU.
        Full = "full",
        /// Something of that is missing: whoever opens the case may forge what it measures.
        Reduced = "reduced",
        /// A machine for tests: its measurements prove nothing.
        None = "none",
    }
}

/// A machine's TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedModule {
    /// Its kind.
    pub kind: TpmKind,
    /// How it is spoken to.
    pub interface: Interface,
    /// What it is worth.
    pub assurance: Assurance,
}

/// What starts the machine again if it hangs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watchdog {
    /// Its driver's name, as /sys/class/watchdog/*/identity says it.
    pub identity: String,
}

/// What else must hold on the machine. Secure Boot and lockdown are no choice: they always must.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Must {
    /// MiB of memory, at least.
    pub memory_mib: u32,
    /// The IOMMU is on: a card cannot read memory that it wasn't given.
    pub iommu: bool,
    /// The processor encrypts all memory (AMD SME or Intel TME).
    pub memory_encryption: bool,
}

/// A disk that the machine starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootDisk {
    /// Where it is plugged in.
    pub place: Place,
}

/// A tray for a disk of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tray {
    /// Its number, from 1, as it is written on the machine.
    pub number: u8,
    /// Where it is plugged in.
    pub place: Place,
}

/// A network port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPort {
    /// What it is for.
    pub role: Role,
    /// Which one it is.
    pub plug: Plug,
}

/// What of a chip is read: `temp1`, `fan2`, `power1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorInput(String);

text!(SensorInput);

impl SensorInput {
    /// `temp`, `fan` or `power`.
    pub fn kind(&self) -> &str {
        self.0.trim_end_matches(|c: char| c.is_ascii_digit())
    }
}

impl FromStr for SensorInput {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let number = ["temp", "fan", "power"].iter().find_map(|kind| s.strip_prefix(kind)).and_then(decimal);
        let fits = number.is_some_and(|n| (1..=999).contains(&n));
        if fits { Ok(Self(s.to_owned())) } else { Err(format!("{s:?} is no input: use temp, fan or power with a number, like temp1")) }
    }
}

impl fmt::Display for SensorInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A sensor that host staff are shown, as /sys/class/hwmon has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    /// What it tells, for people.
    pub name: Name,
    /// The chip's name in hwmon.
    pub chip: String,
    /// What of it.
    pub input: SensorInput,
    /// Below this it is an alarm: °C, turns a minute, W.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<u32>,
    /// Above this it is an alarm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u32>,
}

/// A SHA-256.
pub type Digest = Hash32;

/// An event that a firmware measures into PCR 4 before the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareEvent {
    /// The event's digest, SHA-256.
    pub digest: Digest,
    /// What it is, and how that was found out.
    pub what: String,
}
