//! What pages answer, their files, and the document.

use serde_json::json;
use utoipa::IntoResponses;
use utoipa::openapi::Type;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::Object;

use super::{Answers, JSON, content, failures, header, of, text, with};
use crate::http::docs::schemas::observe::Alive;
use crate::http::error::ApiError;

const HTML: &str = "text/html";

/// Of `GET /`.
pub struct RootAnswers;

impl IntoResponses for RootAnswers {
    fn responses() -> Answers {
        let alive = json!({ "service": "eventsieve", "status": "alive", "version": env!("CARGO_PKG_VERSION") });
        let answer = of::<Alive>("It is there.", [("alive", alive)]).content(HTML, content(text(), []));
        with_not_modified(with(Answers::new(), [("200", answer)]))
    }
}

/// Of a page for people.
pub struct PageAnswers;

impl IntoResponses for PageAnswers {
    fn responses() -> Answers {
        let page = Response::builder()
            .description("The page.")
            .content(HTML, content(text(), []));
        with(Answers::new(), [("200", page)])
    }
}

/// Of `GET /dashboard`.
pub struct DashboardAnswers;

impl IntoResponses for DashboardAnswers {
    fn responses() -> Answers {
        with_not_modified(PageAnswers::responses())
    }
}

/// Of `GET /dashboard/{file}`.
pub struct DashboardFileAnswers;

impl IntoResponses for DashboardFileAnswers {
    fn responses() -> Answers {
        with_not_modified(FileAnswers::responses())
    }
}

/// Of `GET /docs`.
pub struct EnterAnswers;

impl IntoResponses for EnterAnswers {
    fn responses() -> Answers {
        let elsewhere = Response::builder()
            .description("The page is at `/docs/`.")
            .header("location", header("Relative to this one.", text()));
        with(Answers::new(), [("308", elsewhere)])
    }
}

/// Of `GET /docs/{file}`.
pub struct FileAnswers;

impl IntoResponses for FileAnswers {
    fn responses() -> Answers {
        let file = ["text/css", "text/javascript", "text/html", "image/png", "image/svg+xml"]
            .into_iter()
            .fold(Response::builder().description("The file."), |file, media_type| {
                file.content(media_type, content(text(), []))
            });
        with(failures([("not_found", ApiError::NotFound)]), [("200", file)])
    }
}

/// Of `GET /openapi.json`.
pub struct DocumentAnswers;

impl IntoResponses for DocumentAnswers {
    fn responses() -> Answers {
        let object = Object::builder().schema_type(Type::Object);
        let document = Response::builder()
            .description("OpenAPI 3.1.")
            .content(JSON, content(object, []));
        with(Answers::new(), [("200", document)])
    }
}

/// The same for a browser that may have the page or file already.
fn with_not_modified(answers: Answers) -> Answers {
    let unchanged = Response::builder().description("With `If-None-Match`: the browser's copy is still good.");
    with(answers, [("304", unchanged)])
}
