//! `http.md`: the OpenAPI document as a page.

use serde_json::{Map, Value};

use super::{check, code, head, row};
use crate::http;

const INTRODUCTION: &str = "\
# HTTP API

This page is made from the OpenAPI 3.1 document of the service, which also has examples: `/openapi.json`, `/docs` in a browser, or
`eventsieve openapi`. The guides show requests that you can try: [publish](../guides/publish.md), [read](../guides/read.md),
[subscribe](../guides/subscribe.md).
";

#[test]
fn http_page_is_current() {
    let document: Value = serde_json::from_str(http::document()).unwrap();
    let api = Api(&document);
    let mut page = format!(
        "{INTRODUCTION}\n{}\n\n{}",
        text(&document["info"]["description"]),
        api.shared_section()
    );
    for tag in array(&document["tags"]) {
        page.push_str(&format!("\n## {}\n", text(&tag["description"])));
        let operations = api.operations();
        for operation in operations
            .iter()
            .filter(|operation| operation.is_of(text(&tag["name"])))
        {
            page.push_str(&api.operation_section(operation));
        }
    }
    page.push_str("\n## Schemas\n");
    for (name, schema) in object(&document["components"]["schemas"]) {
        page.push_str(&schema_section(name, schema));
    }
    check("http.md", &page);
}

/// The document.
struct Api<'d>(&'d Value);

/// A method of a path.
struct Operation<'d> {
    method: String,
    path: &'d str,
    value: &'d Value,
}

impl Operation<'_> {
    fn is_of(&self, tag: &str) -> bool {
        array(&self.value["tags"]).iter().any(|own| own == tag)
    }
}

impl<'d> Api<'d> {
    fn operations(&self) -> Vec<Operation<'d>> {
        let paths = object(&self.0["paths"]).iter();
        let methods = paths.flat_map(|(path, item)| {
            object(item).iter().map(move |(method, value)| Operation {
                method: method.to_uppercase(),
                path,
                value,
            })
        });
        methods.collect()
    }

    /// What every operation has alike is told once.
    fn shared_section(&self) -> String {
        let operations = self.operations();
        let first = operations.first().expect("a service has operations");
        let shared: Vec<&Value> = array(&first.value["parameters"])
            .iter()
            .filter(|one| self.is_shared(one))
            .collect();
        format!("Every request may have:\n\n{}", parameters(&shared))
    }

    fn is_shared(&self, parameter: &Value) -> bool {
        let operations = self.operations();
        operations
            .iter()
            .all(|operation| array(&operation.value["parameters"]).contains(parameter))
    }

    /// Whether all answers of all operations have this header.
    fn is_shared_header(&self, name: &str) -> bool {
        let operations = self.operations();
        let mut answers = operations
            .iter()
            .flat_map(|operation| object(&operation.value["responses"]).values());
        answers.all(|answer| answer["headers"].get(name).is_some())
    }

    fn operation_section(&self, operation: &Operation) -> String {
        let Operation { method, path, value } = operation;
        let mut section = format!("\n### {method} {path}\n\n{}\n", text(&value["summary"]));
        if let Some(description) = value["description"].as_str() {
            section.push_str(&format!("\n{}\n", description.trim()));
        }
        let own: Vec<&Value> = array(&value["parameters"])
            .iter()
            .filter(|one| !self.is_shared(one))
            .collect();
        if !own.is_empty() {
            section.push_str(&format!("\n{}", parameters(&own)));
        }
        let body = &value["requestBody"];
        if body.is_object() {
            let body = format!("Body: {}. {}", content(&body["content"]), text(&body["description"]));
            section.push_str(&format!("\n{}\n", body.trim()));
        }
        section.push_str(&format!("\n{}", head(&["status", "meaning", "body", "headers"])));
        for (status, answer) in object(&value["responses"]) {
            let headers = answer["headers"].as_object().into_iter().flat_map(Map::keys);
            let headers: Vec<String> = headers
                .filter(|name| !self.is_shared_header(name))
                .map(|name| code(name))
                .collect();
            section.push_str(&row(&[
                status,
                &meaning(answer),
                &content(&answer["content"]),
                &headers.join(", "),
            ]));
        }
        section
    }
}

/// What an answer means; for an error, what its examples say happened.
fn meaning(answer: &Value) -> String {
    let examples = &answer["content"]["application/problem+json"]["examples"];
    let examples = examples.as_object().into_iter().flat_map(Map::values);
    let details = examples.filter_map(|example| example["value"]["detail"].as_str());
    let parts = std::iter::once(text(&answer["description"])).chain(details);
    parts
        .map(|part| part.trim().trim_end_matches('.').to_owned() + ".")
        .collect::<Vec<String>>()
        .join(" ")
}

fn parameters(parameters: &[&Value]) -> String {
    let mut table = head(&["parameter", "in", "type", "meaning"]);
    for parameter in parameters {
        let required = if parameter["required"] == true {
            ", required"
        } else {
            ""
        };
        table.push_str(&row(&[
            &code(text(&parameter["name"])),
            &format!("{}{required}", text(&parameter["in"])),
            &kind(&parameter["schema"]),
            text(&parameter["description"]),
        ]));
    }
    table
}

/// Media types with the type of each.
fn content(content: &Value) -> String {
    let types = content.as_object().into_iter().flatten().map(|(media_type, value)| {
        let kind = kind(&value["schema"]);
        let separator = if kind.is_empty() { "" } else { ": " };
        format!("{}{separator}{kind}", code(media_type))
    });
    types.collect::<Vec<String>>().join("; ")
}

fn schema_section(name: &str, schema: &Value) -> String {
    let mut section = format!("\n### {name}\n");
    for part in [schema["description"].as_str().unwrap_or_default(), &of_kind(schema)] {
        if !part.is_empty() {
            section.push_str(&format!("\n{}\n", part.trim()));
        }
    }
    let branches = array(&schema["oneOf"])
        .iter()
        .filter(|branch| branch["properties"].is_object());
    for members in std::iter::once(schema).chain(branches) {
        let Some(properties) = members["properties"].as_object() else {
            continue;
        };
        section.push_str(&format!("\n{}", head(&["member", "type", "meaning"])));
        for (member, value) in properties {
            let is_required = array(&members["required"]).iter().any(|name| name == member);
            let optional = if is_required { "" } else { ", optional" };
            section.push_str(&row(&[
                &code(member),
                &format!("{}{optional}", kind(value)),
                text(&value["description"]),
            ]));
        }
    }
    section
}

/// What a schema is that is more than an object with members.
fn of_kind(schema: &Value) -> String {
    if schema["properties"].is_object() {
        String::new()
    } else {
        format!("Type: {}", kind(schema))
    }
}

/// A type in words.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return format!("[{name}](#{})", name.to_lowercase());
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        let branches: Vec<String> = array(&schema[key]).iter().map(kind).collect();
        if !branches.is_empty() {
            return branches.join(" or ");
        }
    }
    let values: Vec<String> = array(&schema["enum"])
        .iter()
        .map(|value| code(&value.to_string()))
        .collect();
    if !values.is_empty() {
        return values.join(", ");
    }
    if !schema["const"].is_null() {
        return code(&schema["const"].to_string());
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().map(text).collect::<Vec<&str>>().join(" or "),
        _ => String::new(),
    };
    let name = match name.as_str() {
        "array" => format!("array of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("object with values of type {}", kind(&schema["additionalProperties"]))
        }
        _ => name,
    };
    name + &limits(schema)
}

/// The limits of a type. That a number is not negative goes without saying.
fn limits(schema: &Value) -> String {
    let mut limits = String::new();
    for (least, most, unit) in [
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("", "maxItems", " items"),
    ] {
        let least = schema[least].as_u64().filter(|least| *least > 0);
        limits += &match (least, schema[most].as_u64()) {
            (Some(least), Some(most)) => format!(", {least} to {most}{unit}"),
            (Some(least), None) => format!(", at least {least}{unit}"),
            (None, Some(most)) => format!(", at most {most}{unit}"),
            (None, None) => String::new(),
        };
    }
    if !schema["default"].is_null() {
        limits += &format!(", default {}", code(schema["default"].to_string().trim_matches('"')));
    }
    limits
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}
