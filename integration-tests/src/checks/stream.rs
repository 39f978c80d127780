//! `/events/stream`: each event once, from the requested cursor on.

use futures_util::future::{join, join_all};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::answers::{assert_counts, ids, ids_of, publish_payload};
use super::reading::lines;
use crate::deployment::{Deployment, PROMPTLY};
use crate::http::{Answer, ask, encoded};
use crate::publish::{Publish, Scan, event, events, publish_batch, text};
use crate::stream_subscriber::{Frame, StreamSubscriber};

fn frame_ids(frames: &[Frame]) -> Vec<String> {
    frames.iter().map(Frame::event_id).collect()
}

/// Asserts that these are all events of the topic, in the order of the log, as a list has them.
async fn assert_whole_topic(deployment: &Deployment, topic: &str, frames: &[Frame]) {
    let listed = deployment.listed(topic).await;
    assert_eq!(
        frame_ids(frames),
        ids_of(&listed),
        "the frames, and the list of what is stored"
    );
    for (frame, event) in frames.iter().zip(&listed) {
        assert_eq!(
            frame.id,
            text(event, "cursor"),
            "the id of a frame is the cursor of its event"
        );
        assert_eq!(frame.json(), *event, "the data of a frame is the event as in /events");
    }
}

pub(super) async fn a_stream_begins_with_the_next_event(deployment: &Deployment) {
    let topic = deployment.topic();
    publish_batch(deployment, events(&topic, 0..5)).await;
    // An event that is not yet stable would come next.
    let filter = format!("&topic={topic}");
    Scan::default().until(deployment, &filter, 5, PROMPTLY).await;
    let mut subscriber = StreamSubscriber::open(deployment, &format!("topic={topic}"), None).await;
    for number in 5..10 {
        publish_batch(deployment, events(&topic, number..number + 1)).await;
        let next = subscriber.collect(1, PROMPTLY).await;
        assert_eq!(
            frame_ids(&next),
            ids(number..number + 1),
            "the first event after the subscriber came"
        );
    }
}

pub(super) async fn a_stream_resumes_at_the_requested_cursor(deployment: &Deployment) {
    let topic = deployment.topic();
    let cursors = publish_batch(deployment, events(&topic, 0..10)).await;
    let of_topic = format!("topic={topic}");
    let from_the_beginning = format!("{of_topic}&after=");
    let behind_the_sixth = format!("{of_topic}&after={}", encoded(&cursors[5]));
    let mut subscribers = Vec::new();
    for (asked, query, last_event_id, begin) in [
        ("after= empty", &from_the_beginning, None, 0),
        ("after= the sixth event", &behind_the_sixth, None, 6),
        ("Last-Event-ID the third event", &of_topic, Some(&cursors[2]), 3),
        (
            "Last-Event-ID, which comes before after=",
            &behind_the_sixth,
            Some(&cursors[7]),
            8,
        ),
        (
            "Last-Event-ID, which comes before after= empty",
            &from_the_beginning,
            Some(&cursors[8]),
            9,
        ),
    ] {
        let subscriber = StreamSubscriber::open(deployment, query, last_event_id.map(String::as_str)).await;
        subscribers.push((asked, subscriber, begin));
    }
    publish_batch(deployment, events(&topic, 10..12)).await;
    for (asked, mut subscriber, begin) in subscribers {
        let frames = subscriber.collect(12 - begin, PROMPTLY).await;
        assert_eq!(frame_ids(&frames), ids(begin..12), "what comes with {asked}");
    }
}

pub(super) async fn a_topic_filter_excludes_other_topics(deployment: &Deployment) {
    let lower = deployment.topic_like("orders");
    let upper = lower.replace("orders", "Orders");
    let other = deployment.topic();
    let mut live = StreamSubscriber::open(deployment, &format!("topic={lower}"), None).await;
    let batch = [events(&other, 0..40), events(&lower, 0..2), events(&upper, 0..2)].concat();
    let cursors = publish_batch(deployment, batch).await;
    publish_batch(deployment, events(&lower, 2..4)).await;
    let mut all = StreamSubscriber::open(deployment, &format!("topic={lower}&after="), None).await;
    let mut resumed = StreamSubscriber::open(deployment, &format!("topic={lower}"), Some(&cursors[0])).await;
    for subscriber in [&mut live, &mut all, &mut resumed] {
        let frames = subscriber.collect(4, PROMPTLY).await;
        assert_eq!(
            frame_ids(&frames),
            ids(0..4),
            "the events of the topic that was asked for"
        );
        assert!(
            frames.iter().all(|frame| frame.json()["topic"] == lower),
            "another topic: {frames:?}"
        );
    }
}

/// The answer to a subscriber that must be rejected. Its status is checked first, because an accepted stream would never end.
async fn rejected(request: RequestBuilder, asked: &str) -> Answer {
    let again = request.try_clone().expect("a GET has no body");
    let begun = request.send().await.expect("the service answers");
    assert_eq!(
        begun.status(),
        422,
        "the status of a subscriber with {asked}, which is no cursor"
    );
    ask(again).await
}

pub(super) async fn an_invalid_cursor_is_rejected_by_name(deployment: &Deployment) {
    for cursor in ["nonsense", "0", "%20", "evt-1"] {
        let asked = format!("after={cursor}");
        let answer = rejected(deployment.get(&format!("/events/stream?{asked}")), &asked).await;
        let expected = [("cursor_invalid".to_owned(), json!(["query", "after"]))];
        assert_eq!(answer.validation_errors(), expected, "{asked}");
    }
    for cursor in ["nonsense", "0", "evt-1"] {
        let asked = format!("Last-Event-ID: {cursor}");
        let request = deployment.get("/events/stream?after=").header("last-event-id", cursor);
        let expected = [("cursor_invalid".to_owned(), json!(["header", "last-event-id"]))];
        assert_eq!(rejected(request, &asked).await.validation_errors(), expected, "{asked}");
    }
}

pub(super) async fn a_frame_has_the_cursor_and_the_listed_event(deployment: &Deployment) {
    let topic = deployment.topic();
    let payloads = [
        "{\n  \"a\": 1,\r\n\t\"b\": [1,\r2]\n}",
        r#"{"text":"one\ntwo\r\nthree\u2028 \u0085 data: x\n\nid: 7"}"#,
        r#"{"z":9007199254740993,"a":1.0,  "e": 1e2}"#,
    ];
    for (number, payload) in payloads.iter().enumerate() {
        let answer = publish_payload(deployment, &topic, &format!("evt-{number}"), payload).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    let mut subscriber = StreamSubscriber::open(deployment, &format!("topic={topic}&after="), None).await;
    let frames = subscriber.collect(payloads.len(), PROMPTLY).await;
    assert_whole_topic(deployment, &topic, &frames).await;
    let lines = lines(deployment, &format!("topic={topic}")).await;
    for (frame, (line, payload)) in frames.iter().zip(lines.text().lines().zip(payloads)) {
        assert_eq!(
            frame.data, line,
            "the data of a frame is byte for byte the line in /events"
        );
        let one_line = payload.replace(['\n', '\r'], " ");
        assert!(
            frame.data.contains(&one_line),
            "{one_line} was sent, and the frame has {}",
            frame.data
        );
    }
}

pub(super) async fn a_stream_has_each_event_once_while_many_publish(deployment: &Deployment) {
    const PUBLISHERS: usize = 8;
    const EVENTS: usize = PUBLISHERS * 60;

    let topic = deployment.topic();
    let query = format!("topic={topic}");
    let mut live = StreamSubscriber::open(deployment, &query, None).await;
    let mut other = StreamSubscriber::open(deployment, &query, None).await;
    // Each publishes sixty events of its own, and thirty of its neighbour's.
    let publishing = join_all((0..PUBLISHERS).map(async |publisher| {
        let numbers = publisher * 60..publisher * 60 + 90;
        let mine: Vec<Value> = numbers
            .map(|number| event(&topic, &format!("evt-{}", number % EVENTS)))
            .collect();
        for batch in mine.chunks(6) {
            let answer = deployment.publish(&Value::from(batch)).await;
            assert!([200, 201].contains(&answer.status), "{}", answer.text());
        }
    }));
    // The time of publishing is in it.
    let deadline = 3 * PROMPTLY;
    let reading = join(live.collect(EVENTS, deadline), other.collect(EVENTS, deadline));
    let (_, (one, two)) = join(publishing, reading).await;
    assert_whole_topic(deployment, &topic, &one).await;
    assert_eq!(frame_ids(&one), frame_ids(&two), "two subscribers see the same");
    // What came twice would have come by now.
    assert_counts(&deployment.publish(&event(&topic, "last")).await, 201, 1, 0);
    assert_eq!(frame_ids(&live.collect(1, PROMPTLY).await), ["last"], "the next frame");
}

pub(super) async fn reconnecting_sees_each_event_once(deployment: &Deployment) {
    const EVENTS: usize = 200;

    let topic = deployment.topic();
    let publishing = async {
        for batch in events(&topic, 0..EVENTS).chunks(5) {
            publish_batch(deployment, batch.to_vec()).await;
        }
    };
    let reading = async {
        let mut frames: Vec<Frame> = Vec::new();
        while frames.len() < EVENTS {
            let last = frames.last().map(|frame| frame.id.clone());
            let mut subscriber =
                StreamSubscriber::open(deployment, &format!("topic={topic}&after="), last.as_deref()).await;
            let length = (frames.len() % 23 + 1).min(EVENTS - frames.len());
            frames.extend(subscriber.collect(length, PROMPTLY).await);
        }
        frames
    };
    let ((), frames) = join(publishing, reading).await;
    assert_whole_topic(deployment, &topic, &frames).await;
}
