//! Temperatures, fans and power, as the profile names them.
//!
//! Promises: only reads; a sensor that is gone or says nothing is told as such, never as a value.

use std::{fs, path::Path};

use hoidla_format::profile::Sensor;

use super::devices::read;

/// What a sensor says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What it tells, for people.
    pub name: String,
    /// `temp`, `fan` or `power`.
    pub kind: String,
    /// °C, turns a minute, W; none if it says nothing.
    pub value: Option<i64>,
    /// It says nothing, or what is outside its bounds.
    pub alarm: bool,
}

impl Reading {
    /// Of a sensor.
    pub fn of(sys: &Path, sensor: &Sensor) -> Self {
        let value = value(sys, sensor);
        let low = |v: i64| sensor.least.is_some_and(|least| v < i64::from(least));
        let high = |v: i64| sensor.most.is_some_and(|most| v > i64::from(most));
        let alarm = value.is_none_or(|v| low(v) || high(v));
        Self { name: sensor.name.to_string(), kind: sensor.input.kind().to_owned(), value, alarm }
    }

    /// The unit of its value.
    pub fn unit(&self) -> &'static str {
        match self.kind.as_str() {
            "temp" => "°C",
            "fan" => "turns/min",
            _ => "W",
        }
    }
}

fn value(sys: &Path, sensor: &Sensor) -> Option<i64> {
    let chips = fs::read_dir(sys.join("class/hwmon")).ok()?.flatten().map(|e| e.path());
    let chip = chips.into_iter().find(|c| read(c.join("name")).is_ok_and(|n| n == sensor.chip))?;
    let raw: i64 = read(chip.join(format!("{}_input", sensor.input))).ok()?.parse().ok()?;
    // hwmon counts in thousandths of a degree and millionths of a watt.
    Some(match sensor.input.kind() {
        "temp" => raw / 1000,
        "power" => raw / 1_000_000,
        _ => raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensor(input: &str, least: Option<u32>, most: Option<u32>) -> Sensor {
        Sensor { name: "inlet".parse().unwrap(), chip: "chip".into(), input: input.parse().unwrap(), least, most }
    }

    #[test]
    fn a_value_has_its_unit_and_its_bounds() {
        let sys = tempfile::tempdir().unwrap();
        let chip = sys.path().join("class/hwmon/hwmon3");
        fs::create_dir_all(&chip).unwrap();
        for (name, text) in [("name", "chip\n"), ("temp1_input", "41500\n"), ("fan2_input", "900\n"), ("power1_input", "230000000\n")] {
            fs::write(chip.join(name), text).unwrap();
        }
        for (input, least, most, value, unit, alarm) in [
            ("temp1", None, Some(80), Some(41), "°C", false),
            ("temp1", None, Some(40), Some(41), "°C", true),
            ("fan2", Some(1000), None, Some(900), "turns/min", true),
            ("power1", None, None, Some(230), "W", false),
            ("temp2", None, None, None, "°C", true),
        ] {
            let reading = Reading::of(sys.path(), &sensor(input, least, most));
            assert_eq!((reading.value, reading.unit(), reading.alarm), (value, unit, alarm), "{input}");
        }
    }
}
