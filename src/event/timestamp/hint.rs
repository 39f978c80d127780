//! What is wrong with a text that is no date-time, for its sender.

/// What is wrong with a text that is almost a date-time. `reads` says whether a text is one.
pub(super) fn of(text: &str, reads: impl Fn(&str) -> bool) -> Option<&'static str> {
    let replaced = |range: std::ops::Range<usize>, digits: &str| {
        let mut text = text.to_owned();
        text.is_ascii() && text.len() >= range.end && {
            text.replace_range(range, digits);
            reads(&text)
        }
    };
    if reads(text.trim()) {
        return Some("leave out the blanks around it");
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("a number of seconds is no date");
    }
    if reads(&format!("{text}T00:00")) {
        return Some("add the time of day");
    }
    if text.get(11..13) == Some("24") && replaced(11..13, "00") {
        return Some("hour 24 is 00:00 of the next day");
    }
    if text.get(17..19) == Some("60") && replaced(17..19, "59") {
        return Some("second 60 cannot be stored");
    }
    let minutes = text.len().checked_sub(2)?;
    let is_offset = |at: usize| text.as_bytes().get(at).is_some_and(|sign| matches!(sign, b'+' | b'-'));
    let with_colon = || Some(format!("{}:{}", text.get(..minutes)?, text.get(minutes..)?));
    if text.len() > 5 && is_offset(text.len() - 5) && with_colon().is_some_and(|text| reads(&text)) {
        return Some("write the offset with a colon, as in +02:00");
    }
    let with_minutes = format!("{text}:00");
    (text.len() > 13 && is_offset(text.len() - 3) && reads(&with_minutes))
        .then_some("write the minutes of the offset, as in +02:00")
}
