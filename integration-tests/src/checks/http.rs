//! HTTP: paths, methods, media types, and the id of every answer.

use serde_json::Value;

use super::answers::publish_coded;
use super::batches::gzipped;
use crate::deployment::Deployment;
use crate::http::ask;
use crate::publish::{Publish, event, events};

pub(super) async fn an_unknown_path_is_404(deployment: &Deployment) {
    for path in ["/nothing-here", "/events/nothing", "/publish/", "/stats/nothing"] {
        deployment.fetch(path).await.problem(404);
    }
}

pub(super) async fn a_wrong_method_is_405_with_the_allowed_ones(deployment: &Deployment) {
    let wrong = deployment.fetch("/publish").await;
    wrong.problem(405);
    assert!(
        wrong.header("allow").contains("POST"),
        "Allow of /publish: {:?}",
        wrong.header("allow")
    );
    for path in ["/events", "/events/stream", "/stats", "/health"] {
        let wrong = ask(deployment.post(path)).await;
        wrong.problem(405);
        assert!(
            wrong.header("allow").contains("GET"),
            "Allow of {path}: {:?}",
            wrong.header("allow")
        );
    }
}

pub(super) async fn wrong_media_types_are_415_broken_bodies_400(deployment: &Deployment) {
    let topic = deployment.topic();
    let body = event(&topic, "evt-1").to_string();
    deployment.publish_bytes("text/plain", body.clone()).await.problem(415);
    ask(deployment.post("/publish").body(body.clone())).await.problem(415);
    for (coding, status) in [("br", 415), ("gzip", 400), ("zstd", 400)] {
        publish_coded(deployment, coding, body.clone().into())
            .await
            .problem(status);
    }
    let mut cut = gzipped(Value::from(events(&topic, 0..50)).to_string().as_bytes());
    cut.truncate(cut.len() / 2);
    publish_coded(deployment, "gzip", cut).await.problem(400);
    assert_eq!(
        deployment.counts(&topic).await,
        [0; 4],
        "rejected events are not counted"
    );
}

pub(super) async fn each_answer_has_a_request_id_and_echoes_a_valid_one(deployment: &Deployment) {
    let ask_with = async |id: &str| {
        let answer = ask(deployment.get("/livez").header("x-request-id", id)).await;
        answer.header("x-request-id").to_owned()
    };
    let longest = "a".repeat(128);
    for good in ["x", "A-z0.9_:/+=-", longest.as_str()] {
        assert_eq!(ask_with(good).await, good, "a good x-request-id is echoed");
    }
    let too_long = "a".repeat(129);
    for bad in ["with blank", "quote\"", "semi;colon", "", too_long.as_str()] {
        let made = ask_with(bad).await;
        assert!(
            !made.is_empty() && made != bad,
            "{bad:?} became {made:?}, not an id of the service's own"
        );
    }
    let (one, other) = (deployment.fetch("/livez").await, deployment.fetch("/livez").await);
    let ids = (one.header("x-request-id"), other.header("x-request-id"));
    assert_ne!(ids.0, ids.1, "two requests have the same id");
    for path in ["/nothing-here", "/events?limit=0", "/events?limit=1", "/stats", "/"] {
        let answer = deployment.fetch(path).await;
        assert_ne!(
            answer.header("x-request-id"),
            "",
            "{path} is answered without x-request-id"
        );
    }
    let rejected = ask(deployment.post("/publish").header("x-request-id", "mine").body("{}")).await;
    assert_eq!(rejected.problem(415)["request_id"], "mine", "request_id of a problem");
}
