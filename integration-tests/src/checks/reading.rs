//! Lists: an acknowledged event is in every later list.

use reqwest::Url;
use serde_json::{Value, json};

use super::answers::{assert_counts, ids, ids_of};
use crate::deployment::{Deployment, PROMPTLY};
use crate::http::{Answer, ask, encoded};
use crate::publish::{Publish, Scan, event, events, page, text};

/// Requests a list or a cursor read as NDJSON.
pub(super) async fn lines(deployment: &Deployment, query: &str) -> Answer {
    ask(deployment
        .get(&format!("/events?{query}"))
        .header("accept", "application/x-ndjson"))
    .await
}

pub(super) async fn an_acknowledged_event_is_in_every_later_list(deployment: &Deployment) {
    let topic = deployment.topic();
    for number in 0..40 {
        let id = format!("evt-{number}");
        let answer = deployment.publish(&event(&topic, &id)).await;
        assert_counts(&answer, 201, 1, 0);
        let listed = page(deployment, &format!("topic={topic}&event_id={id}")).await.events;
        assert_eq!(
            listed.len(),
            1,
            "{id} was acknowledged, and the list asked for next has not got it"
        );
        let result = &answer.json()["results"][0];
        assert_eq!(
            listed[0]["cursor"], result["cursor"],
            "the cursor in the list and in the answer"
        );
        assert_eq!(
            listed[0]["received_at"], result["received_at"],
            "received_at in the list and in the answer"
        );
        let count = number + 1;
        let counts = deployment.counts(&topic).await;
        assert_eq!(
            counts,
            [count, count, 0, 0],
            "{id} was acknowledged, and is not counted"
        );
    }
}

pub(super) async fn lists_are_ordered_limited_and_offset(deployment: &Deployment) {
    let topic = deployment.topic();
    for part in 0..3 {
        let batch = Value::from(events(&topic, part * 50..part * 50 + 50));
        assert_counts(&deployment.publish(&batch).await, 201, 50, 0);
    }
    let all = ids(0..150);
    let list = async |query: &str| ids_of(&page(deployment, &format!("topic={topic}{query}")).await.events);
    assert_eq!(list("").await, all[..100], "100 unless a limit is given");
    assert_eq!(list("&order=asc&limit=1000").await, all, "order=asc");
    assert_eq!(list("&limit=1").await, all[..1], "limit=1");
    assert_eq!(list("&limit=10&offset=145").await, all[145..], "offset=145");
    assert_eq!(list("&offset=150").await, all[150..], "an offset behind the end");
    let backwards: Vec<String> = all.iter().rev().cloned().collect();
    assert_eq!(list("&order=desc&limit=1000").await, backwards, "order=desc");
    assert_eq!(
        list("&order=desc&limit=5&offset=2").await,
        backwards[2..7],
        "order=desc&offset=2"
    );
}

pub(super) async fn filters_select_by_topic_source_id_and_time(deployment: &Deployment) {
    let (even, odd) = (deployment.topic(), deployment.topic());
    let mut batch = Vec::new();
    for number in 0..12 {
        let topic = [&even, &odd][number % 2];
        let mut event = event(topic, &format!("evt-{number}"));
        event["source"] = json!(format!("sensor {}", number % 3));
        event["timestamp"] = json!(format!("2025-10-24T10:{number:02}:00Z"));
        batch.push(event);
    }
    assert_counts(&deployment.publish(&Value::from(batch)).await, 201, 12, 0);
    for (topic, filter, expected) in [
        (&even, "", vec![0, 2, 4, 6, 8, 10]),
        (&odd, "&event_id=evt-3", vec![3]),
        (&odd, "&event_id=evt-4", vec![]),
        (&even, "&source=sensor%201", vec![4, 10]),
        (&even, "&source=sensor+1", vec![4, 10]),
        (
            &odd,
            "&since=2025-10-24T10:03:00Z&until=2025-10-24T10:07:00Z",
            vec![3, 5],
        ),
        (&even, "&until=2025-10-24T10:02:00Z", vec![0]),
        (&odd, "&since=2025-10-24T12:10:00%2B02:00", vec![11]),
        (&even, "&source=sensor%200&since=2025-10-24T10:01:00Z", vec![6]),
    ] {
        let expected: Vec<String> = expected.iter().map(|number| format!("evt-{number}")).collect();
        let query = format!("topic={topic}{filter}");
        let listed = page(deployment, &query).await.events;
        assert_eq!(ids_of(&listed), expected, "the list of {filter:?}");
        let mut scan = Scan::default();
        scan.until(deployment, &format!("&{query}"), expected.len(), PROMPTLY)
            .await;
        assert_eq!(scan.event_ids(), expected, "the cursor read of {filter:?}");
        let lines = lines(deployment, &query).await.lines();
        assert_eq!(ids_of(&lines), expected, "the lines of {filter:?}");
    }
}

pub(super) async fn an_invalid_parameter_is_named(deployment: &Deployment) {
    for (query, kind, name) in [
        ("limit=0", "greater_than_equal", "limit"),
        ("limit=-1", "greater_than_equal", "limit"),
        ("limit=1001", "less_than_equal", "limit"),
        ("limit=ten", "int_parsing", "limit"),
        ("limit=", "int_parsing", "limit"),
        ("offset=-1", "greater_than_equal", "offset"),
        ("offset=x", "int_parsing", "offset"),
        ("order=up", "literal_error", "order"),
        ("format=xml", "literal_error", "format"),
        ("since=yesterday", "datetime_parsing", "since"),
        ("until=2025-10-24T10:30:60Z", "datetime_parsing", "until"),
        ("after=nonsense", "cursor_invalid", "after"),
        ("after=%00", "cursor_invalid", "after"),
        ("after=&order=desc", "not_allowed", "order"),
        ("after=&offset=1", "not_allowed", "offset"),
    ] {
        let answer = deployment.fetch(&format!("/events?{query}")).await;
        assert_eq!(answer.status, 422, "/events?{query}: {:.300}", answer.text());
        let expected = [(kind.to_owned(), json!(["query", name]))];
        assert_eq!(
            answer.validation_errors(),
            expected,
            "the (type, loc) of the only validation error of /events?{query}"
        );
    }
    let two = deployment.fetch("/events?limit=0&order=up").await.validation_errors();
    assert_eq!(two.len(), 2, "every validation error is listed: {two:?}");
    let next = page(deployment, "limit=1").await.next;
    let longer = deployment.fetch(&format!("/events?after={}0", encoded(&next))).await;
    assert_eq!(
        longer.validation_errors()[0].0,
        "cursor_invalid",
        "a cursor with one more character"
    );
    let explicit = deployment.fetch("/events?after=&order=asc&limit=1").await;
    assert_eq!(
        explicit.status,
        200,
        "a cursor read accepts its own order: {}",
        explicit.text()
    );
}

/// Where the `Link` header of an answer points.
fn linked(deployment: &Deployment, answer: &Answer) -> String {
    let link = answer.header("link");
    let target = link
        .strip_prefix('<')
        .and_then(|rest| rest.strip_suffix(r#">; rel="next""#))
        .unwrap_or_else(|| panic!("no next in Link: {link:?}"));
    let url = Url::parse(&format!("{}/events", deployment.url()))
        .and_then(|base| base.join(target))
        .expect("a link is a URL");
    format!("{}?{}", url.path(), url.query().expect("a link has a query"))
}

pub(super) async fn a_bare_array_links_to_the_next_page(deployment: &Deployment) {
    let topic = deployment.topic();
    assert_counts(
        &deployment.publish(&Value::from(events(&topic, 0..25))).await,
        201,
        25,
        0,
    );
    Scan::default()
        .until(deployment, &format!("&topic={topic}"), 25, PROMPTLY)
        .await;
    let mut path = format!("/events?format=array&after=&topic={topic}&limit=10");
    let mut seen = Vec::new();
    // A page may have fewer events than the limit, even none.
    for _ in 0..100 {
        let answer = deployment.fetch(&path).await;
        assert_eq!(answer.header("content-type"), "application/json", "{path}");
        let events = answer.json().as_array().expect("a bare array").clone();
        assert!(events.len() <= 10, "{} events on a page of 10", events.len());
        seen.extend(ids_of(&events));
        if seen.len() >= 25 {
            break;
        }
        path = linked(deployment, &answer);
    }
    assert_eq!(seen, ids(0..25), "the link keeps the filter, the format and the limit");
}

pub(super) async fn ndjson_has_no_limit_unless_one_is_given(deployment: &Deployment) {
    let topic = deployment.topic();
    let sent = Value::from(events(&topic, 0..1500));
    assert_counts(&deployment.publish(&sent).await, 201, 1500, 0);
    Scan::default()
        .until(deployment, &format!("&topic={topic}"), 1500, PROMPTLY)
        .await;
    let all = ids(0..1500);
    let list = lines(deployment, &format!("topic={topic}")).await;
    assert_eq!(list.header("content-type"), "application/x-ndjson", "of lines");
    assert_eq!(ids_of(&list.lines()), all, "more events than a page of JSON may have");
    let scanned = lines(deployment, &format!("topic={topic}&after=")).await.lines();
    assert_eq!(ids_of(&scanned), all, "a cursor read to the current end");
    let few = lines(deployment, &format!("topic={topic}&limit=5")).await.lines();
    assert_eq!(ids_of(&few), all[..5], "limit=5");
    let middle = text(&scanned[1233], "cursor");
    let rest = lines(deployment, &format!("topic={topic}&after={middle}"))
        .await
        .lines();
    assert_eq!(ids_of(&rest), all[1234..], "a cursor read from the cursor of a line");
}
