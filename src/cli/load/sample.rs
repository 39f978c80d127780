//! The sample events: what a small shop would report, made up from the plan and the event's number.
//!
//! An event is a pure function of the plan and its number, so a duplicate is made by making its first copy again, byte for byte, and
//! nothing that was sent has to be kept.

use std::{fmt::Write, num::NonZeroU64};

use chrono::{DateTime, SecondsFormat};

use super::plan::{Plan, Random, Times};

/// The timestamps start again after a year.
const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

/// One kind of event.
struct Kind {
    topic: &'static str,
    source: &'static str,
    payload: fn(&mut Random) -> String,
}

const KINDS: [Kind; 4] = [
    Kind {
        topic: "order.created",
        source: "shop-web",
        payload: order,
    },
    Kind {
        topic: "user.login",
        source: "auth",
        payload: login,
    },
    Kind {
        topic: "payment.settled",
        source: "billing",
        payload: payment,
    },
    Kind {
        topic: "shipment.dispatched",
        source: "warehouse",
        payload: shipment,
    },
];

/// Appends the first copy with this number to `json`, as one JSON object in one line.
pub(crate) fn write_event(plan: &Plan, number: u64, json: &mut String) {
    let mut random = Random::of_event(plan.seed, number);
    let place = number % plan.topics;
    let index = usize::try_from(place).unwrap_or_default() % KINDS.len();
    let kind = &KINDS[index];
    let topic = match place / KINDS.len() as u64 {
        0 => kind.topic.to_owned(),
        round => format!("{}.{}", kind.topic, round + 1),
    };
    let timestamp = timestamp(plan.times, number, &mut random);
    let (seed, source, payload) = (plan.seed, kind.source, (kind.payload)(&mut random));
    // Seed and number make the identity, so two seeds share no event.
    write!(
        json,
        r#"{{"topic":"{topic}","event_id":"evt-{seed:016x}-{number}","timestamp":"{timestamp}","source":"{source}","payload":{payload}}}"#
    )
    .expect("writing to a string cannot fail");
}

fn timestamp(times: Times, number: u64, random: &mut Random) -> String {
    let offset_ms = number
        .wrapping_mul(times.step_ms)
        .wrapping_add(below(random, times.step_ms))
        % YEAR_MS;
    DateTime::from_timestamp_millis(times.first_ms.saturating_add_unsigned(offset_ms))
        .unwrap_or_default()
        .to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn order(random: &mut Random) -> String {
    let quantity = 1 + below(random, 5);
    let price_cents = 199 + below(random, 20_000);
    format!(
        r#"{{"order_id":"ord-{:010}","customer_id":"cus-{:06}","currency":"{}","items":[{{"sku":"SKU-{:05}","quantity":{quantity},"price_cents":{price_cents}}}],"total_cents":{},"channel":"{}"}}"#,
        below(random, 10_000_000_000),
        below(random, 1_000_000),
        pick(random, &["EUR", "USD", "GBP"]),
        below(random, 100_000),
        quantity * price_cents,
        pick(random, &["web", "app", "store"]),
    )
}

fn login(random: &mut Random) -> String {
    format!(
        r#"{{"user_id":"usr-{:06}","session":"{:016x}","method":"{}","ip":"10.{}.{}.{}","user_agent":"Mozilla/5.0 ({}) Gecko/20100101 Firefox/140.0","mfa":{}}}"#,
        below(random, 1_000_000),
        random.bits(),
        pick(random, &["password", "passkey", "oidc"]),
        below(random, 256),
        below(random, 256),
        below(random, 256),
        pick(
            random,
            &[
                "X11; Linux x86_64",
                "Macintosh; Intel Mac OS X 15.5",
                "Windows NT 10.0; Win64; x64"
            ]
        ),
        pick(random, &["true", "false"]),
    )
}

fn payment(random: &mut Random) -> String {
    format!(
        r#"{{"payment_id":"pay-{:016x}","order_id":"ord-{:010}","amount":{}.{:02},"currency":"{}","method":"{}","provider_reference":"ref-{:012x}","captured":true}}"#,
        random.bits(),
        below(random, 10_000_000_000),
        1 + below(random, 2_000),
        below(random, 100),
        pick(random, &["EUR", "USD", "GBP"]),
        pick(random, &["card", "sepa", "wallet"]),
        random.bits() >> 16,
    )
}

fn shipment(random: &mut Random) -> String {
    format!(
        r#"{{"shipment_id":"shp-{:08}","order_id":"ord-{:010}","carrier":"{}","tracking":"{:020}","weight_grams":{},"destination":{{"country":"{}","postcode":"{:05}"}}}}"#,
        below(random, 100_000_000),
        below(random, 10_000_000_000),
        pick(random, &["DHL", "UPS", "DPD", "GLS"]),
        random.bits(),
        50 + below(random, 30_000),
        pick(random, &["DE", "FR", "NL", "PL", "SE"]),
        below(random, 100_000),
    )
}

fn below(random: &mut Random, bound: u64) -> u64 {
    NonZeroU64::new(bound).map_or(0, |bound| random.below(bound))
}

fn pick(random: &mut Random, choices: &[&'static str]) -> &'static str {
    let index = below(random, choices.len() as u64);
    usize::try_from(index)
        .ok()
        .and_then(|index| choices.get(index))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn event(seed: u64, topics: u64, number: u64) -> String {
        let plan = Plan {
            events: 0,
            duplicates: 0,
            topics: NonZeroU64::new(topics).unwrap(),
            seed,
            times: Times::FIXED,
        };
        let mut json = String::new();
        write_event(&plan, number, &mut json);
        json
    }

    #[test]
    fn an_event_follows_from_seed_and_number() {
        assert_eq!(event(7, 4, 12), event(7, 4, 12));
        assert_ne!(event(7, 4, 12), event(8, 4, 12));
        assert_ne!(event(7, 4, 12), event(7, 4, 16));
    }

    #[test]
    fn a_seed_means_the_same_bytes_in_every_version() {
        let expected = concat!(
            r#"{"topic":"order.created","event_id":"evt-0000000000000001-0","timestamp":"2025-01-01T00:00:00.127Z","#,
            r#""source":"shop-web","payload":{"order_id":"ord-3744631816","customer_id":"cus-215052","currency":"GBP","#,
            r#""items":[{"sku":"SKU-76988","quantity":4,"price_cents":12934}],"total_cents":51736,"channel":"app"}}"#,
        );
        assert_eq!(event(1, 4, 0), expected);
    }

    #[test]
    fn events_are_valid_and_of_a_real_size() {
        for number in (0..2_000).chain([u64::MAX]) {
            let text = event(u64::MAX, 9, number);
            let event: serde_json::Value = serde_json::from_str(&text).unwrap();
            for member in ["topic", "event_id", "timestamp", "source"] {
                assert!(
                    event[member]
                        .as_str()
                        .is_some_and(|text| (1..=255).contains(&text.len())),
                    "{text}"
                );
            }
            assert!(event["payload"].is_object());
            let payload_bytes = event["payload"].to_string().len();
            assert!((120..=300).contains(&payload_bytes), "{payload_bytes}: {text}");
        }
    }

    #[test]
    fn topics_are_used_evenly() {
        let topics: HashSet<String> = (0..10)
            .map(|number| {
                let event: serde_json::Value = serde_json::from_str(&event(3, 10, number)).unwrap();
                event["topic"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(topics.len(), 10);
        assert!(
            topics.contains("order.created") && topics.contains("order.created.3"),
            "{topics:?}"
        );
    }

    #[test]
    fn no_two_numbers_share_an_identity() {
        let ids: HashSet<String> = (0..5_000).map(|number| event(3, 4, number)).collect();
        assert_eq!(ids.len(), 5_000);
    }
}
