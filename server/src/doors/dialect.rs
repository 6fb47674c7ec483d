//! Errors in the shapes that clients of other services read. Status, code and words are those of the
//! one table.

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::ServiceResponse,
    http::StatusCode,
};
use serde_json::{Value, json};

use crate::reply::ApiError;

/// The shape of errors that the clients of a path read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// This server's own.
    Own,
    /// `{"error": {"message", "type", "param", "code"}}`
    OpenAi,
    /// `{"error": "...", "error_type": "..."}`
    HuggingFace,
}

impl Dialect {
    /// What is spoken at a path.
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/v1/embeddings" | "/v1/models" => Self::OpenAi,
            "/embed" | "/info" | "/health" | "/zero-shot-image-classification" => Self::HuggingFace,
            model if model.starts_with("/v1/models/") => Self::OpenAi,
            _ => Self::Own,
        }
    }

    /// The answer to an error that reached no route.
    pub(crate) fn answer(self, error: &Error) -> HttpResponse {
        let answer = error.error_response();
        match self.body(error) {
            Some(body) => answer.set_body(body),
            None => answer,
        }
    }

    /// The answer of a route, in this shape if it is an error.
    pub(crate) fn translate<B: MessageBody + 'static>(
        self,
        answer: ServiceResponse<B>,
    ) -> ServiceResponse<BoxBody> {
        match answer.response().error().and_then(|error| self.body(error)) {
            Some(body) => answer.map_body(|_, _| body),
            None => answer.map_into_boxed_body(),
        }
    }

    /// The body of an error; `None` where it stays as it is.
    fn body(self, error: &Error) -> Option<BoxBody> {
        let error = error.as_error::<ApiError>()?;
        let body = match self {
            Self::Own => return None,
            Self::OpenAi => openai(error),
            Self::HuggingFace => hugging_face(error),
        };
        Some(BoxBody::new(body.to_string()))
    }
}

fn openai(error: &ApiError) -> Value {
    let (status, code) = error.row();
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::UNAUTHORIZED => "authentication_error",
        _ if matches!(error, ApiError::Forbidden { .. }) => "permission_error",
        status if status.is_server_error() => "server_error",
        _ => "invalid_request_error",
    };
    json!({ "error": {
        "message": error.to_string(),
        "type": kind,
        "param": error.field(),
        "code": code,
    } })
}

/// There is no place for the field but the message.
fn hugging_face(error: &ApiError) -> Value {
    let (status, _) = error.row();
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "Overloaded",
        StatusCode::SERVICE_UNAVAILABLE => "Unhealthy",
        status if status.is_server_error() => "Backend",
        _ => "Validation",
    };
    let message = match error.field() {
        Some(field) if !field.is_empty() => format!("{field}: {error}"),
        _ => error.to_string(),
    };
    json!({ "error": message, "error_type": kind })
}
