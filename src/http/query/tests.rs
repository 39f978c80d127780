use super::*;

fn unknown(query: &str) -> Vec<(String, String)> {
    let mut query = Query::read(Some(query));
    query.topic();
    query.event_id();
    query.after();
    query.number("limit", 1, 1000);
    let errors = query.finish().err().unwrap_or_default();
    let described = errors.into_iter().map(|error| {
        assert_eq!(error.kind, ValidationErrorKind::ExtraForbidden);
        (error.loc[1].to_string(), error.msg.into_owned())
    });
    described.collect()
}

#[test]
fn unknown_parameter_is_an_error_with_a_hint() {
    let known = "The parameters are 'topic', 'event_id', 'after', 'limit'";
    for (name, meant) in [
        ("cursor", Some("after")),
        ("lastEventId", Some("after")),
        ("Last-Event-ID", Some("after")),
        ("page_size", Some("limit")),
        ("TOPIC", Some("topic")),
        ("topics", Some("topic")),
        ("eventId", Some("event_id")),
        ("skip", None),
        ("x", None),
        ("", None),
    ] {
        let expected = match meant {
            Some(meant) => format!("Unknown parameter: did you mean '{meant}'? {known}"),
            None => format!("Unknown parameter. {known}"),
        };
        assert_eq!(
            unknown(&format!("limit=1&{name}=1&{name}=2")),
            [(name.to_owned(), expected)]
        );
    }
    assert_eq!(unknown("topic=a&limit=5&"), []);
    let long = "n".repeat(10_000);
    assert_eq!(unknown(&format!("{long}=1"))[0].0, "n".repeat(NAME_CHARACTERS));
    let many: String = (0..1000).map(|number| format!("a{number}=&")).collect();
    assert_eq!(unknown(&many).len(), VALIDATION_ERRORS_MAX);
}

#[test]
fn text_that_is_not_utf_8_is_an_error() {
    let errors = |text: &str| {
        let mut query = Query::read(Some(text));
        query.topic();
        query.source();
        query.finish().err().unwrap_or_default()
    };
    for text in ["topic=%FF", "topic=a%C3", "source=a&topic=%ED%A0%80"] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{text}");
        assert_eq!(errors[0].kind, ValidationErrorKind::StringPatternMismatch);
        assert_eq!(errors[0].loc[1], Loc::name("topic"), "{text}");
    }
    assert_eq!(errors("topic=%EF%BF%BD&source=%C3%A9"), []);
}

fn number(text: &str) -> Result<u64, ValidationErrorKind> {
    let mut query = Query::read(Some(text));
    let number = query.number("limit", 1, 1000);
    query
        .finish()
        .map(|()| number.unwrap())
        .map_err(|errors| errors[0].kind)
}

#[test]
fn number_must_be_within_its_bounds() {
    assert_eq!(number("limit=1"), Ok(1));
    assert_eq!(number("limit=1000"), Ok(1000));
    assert_eq!(number("limit=0"), Err(ValidationErrorKind::GreaterThanEqual));
    assert_eq!(number("limit=-0"), Err(ValidationErrorKind::GreaterThanEqual));
    assert_eq!(number("limit=-5"), Err(ValidationErrorKind::GreaterThanEqual));
    assert_eq!(number("limit=1001"), Err(ValidationErrorKind::LessThanEqual));
    assert_eq!(
        number("limit=99999999999999999999999"),
        Err(ValidationErrorKind::LessThanEqual)
    );
    assert_eq!(number("limit="), Err(ValidationErrorKind::IntParsing));
    assert_eq!(number("limit=1.5"), Err(ValidationErrorKind::IntParsing));
    assert_eq!(number("limit=5&limit=6"), Err(ValidationErrorKind::RepeatedMember));
}

#[test]
fn duration_must_be_within_its_bounds() {
    let seconds = |text: &str| {
        let mut query = Query::read(Some(&format!("window={text}")));
        let seconds = query.seconds("window", 900);
        query
            .finish()
            .map(|()| seconds.unwrap())
            .map_err(|errors| errors[0].kind)
    };
    assert_eq!(seconds("1s"), Ok(1));
    assert_eq!(seconds("90500ms"), Ok(90));
    assert_eq!(seconds("15m"), Ok(900));
    assert_eq!(seconds("900001ms"), Err(ValidationErrorKind::LessThanEqual));
    assert_eq!(seconds("999ms"), Err(ValidationErrorKind::GreaterThanEqual));
    for text in ["", "60", "soon", "-5m", "99999999999999999999s"] {
        assert_eq!(seconds(text), Err(ValidationErrorKind::StringPatternMismatch), "{text}");
    }
}

#[test]
fn every_error_is_listed_with_its_location() {
    let mut query = Query::read(Some("topic=a+b&since=yesterday&order=up&after=x&source="));
    query.topic();
    query.source();
    query.time("since");
    query.after();
    query.word("order", &[("asc", 0), ("desc", 1)]);
    let errors = serde_json::to_value(query.finish().unwrap_err()).unwrap();
    let locations: Vec<&str> = errors
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["loc"][1].as_str().unwrap())
        .collect();
    assert_eq!(locations, ["topic", "source", "since", "after", "order"]);
    assert_eq!(errors[0]["loc"][0], "query");
}

#[test]
fn errors_have_a_limit() {
    let mut query = Query::read(Some(&["%ff&x=1"; 3000].join("&")));
    query.topic();
    assert_eq!(query.finish().unwrap_err().len(), VALIDATION_ERRORS_MAX);
}
