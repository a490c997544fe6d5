//! Amounts as people write them: `512M`, `60s`, `1.5`.

use std::time::Duration;

/// Reads bytes: a number, then nothing, K, M, G or T (powers of 1024).
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|n| *n > 0)
}

/// Reads a duration: a number, then ms, s, m or h.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let number = number.parse::<u64>().ok().filter(|n| *n > 0)?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
    .filter(|d| *d <= Duration::from_secs(7 * 86_400))
}

/// Reads a longer duration: also d for days; up to ten years.
pub(crate) fn days(text: &str) -> Option<Duration> {
    match split(text)? {
        (number, "d") => {
            let days = number.parse::<u64>().ok().filter(|n| (1..=3650).contains(n))?;
            Some(Duration::from_secs(days * 86_400))
        }
        _ => duration(text),
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| text.split_at(digits))
}

/// Bytes as a person would write them.
pub(super) fn show_bytes(bytes: u64) -> String {
    [("T", 40), ("G", 30), ("M", 20), ("K", 10)]
        .into_iter()
        .find(|(_, shift)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// A duration as a person would say it, in its largest unit.
pub(crate) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (unit, size) =
        [("d", 86_400), ("h", 3600), ("m", 60)].into_iter().find(|(_, size)| seconds >= *size).unwrap_or(("s", 1));
    format!("{}{unit}", seconds / size)
}

/// A duration as a person would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 != 0 => format!("{ms}ms"),
        ms if ms >= 86_400_000 && ms % 86_400_000 == 0 => format!("{}d", ms / 86_400_000),
        ms => format!("{}s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_shown() {
        for (text, value) in [("512M", 512 << 20), ("8M", 8 << 20), ("1G", 1 << 30), ("100", 100)] {
            assert_eq!(bytes(text), Some(value));
            assert_eq!(show_bytes(value), text);
        }
        for bad in ["", "M", "-1", "1.5G", "1X", "0", "99999999999999T", "1 G"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
        assert_eq!(duration("60s"), Some(Duration::from_secs(60)));
        assert_eq!(duration("1500ms").map(show_duration), Some("1500ms".into()));
        for bad in ["", "s", "60", "1d", "0s", "-1s", "9999h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
