//! How requests are read: objects where objects are expected, and errors that name the field.

use std::{fmt, marker::PhantomData};

use actix_web::HttpRequest;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::reply::ApiError;

/// A value whose JSON is an object, and nothing else.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

/// What is derived for a struct takes an array of its fields in their order, too, which nobody means.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Reads what may be left out.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(d)?.map(|Object(value)| value))
}

/// Reads several of what may be left out.
pub(crate) fn objects<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let all = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(all.map(|all| all.into_iter().map(|Object(value)| value).collect()))
}

/// Reads what follows `?` in the address of a request.
pub(crate) fn query<T: DeserializeOwned>(request: &HttpRequest) -> Result<T, ApiError> {
    let read = actix_web::web::Query::<T>::from_query(request.query_string());
    let read = read.map_err(|error| ApiError::invalid("query string", error.to_string()))?;
    Ok(read.into_inner())
}

/// Reads a JSON object; an error names the field by its path.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    parse_value(bytes).map(|Object(value)| value)
}

/// Reads any JSON; an error names the field by its path.
pub(crate) fn parse_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        refuse(&path, error.inner())
    })?;
    reader.end().map_err(|error| ApiError::Json {
        message: error.to_string(),
    })?;
    Ok(value)
}

fn refuse(path: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    if !error.is_data() {
        return ApiError::Json { message };
    }
    let outer = if path == "." { "" } else { path };
    // serde reports these at the object that holds the field; the client wants the field.
    let named = ["unknown field `", "missing field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let field = match named {
        Some(name) if outer == name || outer.ends_with(&format!(".{name}")) => outer.to_owned(),
        Some(name) if outer.is_empty() => name.to_owned(),
        Some(name) => format!("{outer}.{name}"),
        None if outer.is_empty() => "body".to_owned(),
        None => outer.to_owned(),
    };
    ApiError::Invalid { field, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ClassifyIn, CollectionIn, ItemIn, SearchIn};

    fn field<T: DeserializeOwned>(json: &str) -> String {
        match parse_value::<T>(json.as_bytes()) {
            Err(ApiError::Invalid { field, .. }) => field,
            Err(other) => panic!("{json}: {other}"),
            Ok(_) => panic!("{json} is read"),
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        assert_eq!(field::<SearchIn>(r#"{"txt": "a"}"#), "txt");
        assert_eq!(field::<SearchIn>(r#"{"text": "a", "k": -1}"#), "k");
        assert_eq!(
            field::<SearchIn>(r#"{"text": "a", "target": "video"}"#),
            "target"
        );
        assert_eq!(field::<SearchIn>(r#"{"embedding": {"a": 1}}"#), "embedding");
        assert_eq!(field::<ClassifyIn>(r#"{"text": "a"}"#), "labels");
        assert_eq!(
            field::<ClassifyIn>(r#"{"text": "a", "labels": ["b", 3]}"#),
            "labels[1]"
        );
        assert_eq!(
            field::<Vec<ItemIn>>(r#"[{"text": "a"}, {"image": 3}]"#),
            "[1].image"
        );
        assert_eq!(field::<Vec<ItemIn>>(r#"[{"tags": 1}]"#), "[0].tags");
        assert_eq!(
            field::<CollectionIn>(r#"{"fields": {"size": "number"}}"#),
            "fields.size"
        );
        assert_eq!(
            field::<CollectionIn>(r#"{"fields": {"": "bool"}}"#),
            "fields"
        );
        assert_eq!(field::<ItemIn>("3"), "body");
    }

    #[test]
    fn what_is_no_json_is_told_from_a_wrong_value() {
        for json in ["", "{", "{\"text\": \"a\"} x", "\u{e9}"] {
            let refused = parse::<ItemIn>(json.as_bytes());
            assert!(matches!(refused, Err(ApiError::Json { .. })), "{json:?}");
        }
    }
}
