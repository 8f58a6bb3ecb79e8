//! Messages in JSON and in gRPC's frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde::Deserialize;
use serde_json::{Deserializer, Value};
use tonic::Status;

/// Length of the head of a frame: a flag for compression, and the length of the message.
const HEAD: usize = 5;

/// Decodes a message in JSON, or all messages if `many`, into frames.
pub(in crate::etcd) fn decode_messages(
    descriptor: &MessageDescriptor,
    many: bool,
    mut text: &[u8],
) -> Result<Bytes, Status> {
    if text.trim_ascii().is_empty() {
        text = b"{}";
    }
    // Also denies unknown names of enums: a condition with a misspelled comparison must not hold by its default.
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let refused = |error| Status::invalid_argument(format!("cannot read the request: {error}"));
    let mut frames = BytesMut::new();
    let mut values = Deserializer::from_slice(text);
    loop {
        let mut value = Value::deserialize(&mut values).map_err(refused)?;
        retain_known(descriptor, &mut value);
        let message = DynamicMessage::deserialize_with_options(descriptor.clone(), value, &options).map_err(refused)?;
        let encoded = message.encode_to_vec();
        frames.put_u8(0);
        // The length of a body is bounded.
        frames.put_u32(u32::try_from(encoded.len()).unwrap_or(u32::MAX));
        frames.extend_from_slice(&encoded);
        let is_last = values.end().is_ok();
        if is_last || !many {
            return Ok(frames.freeze());
        }
    }
}

/// Removes unknown fields, which grpc-gateway ignores.
fn retain_known(descriptor: &MessageDescriptor, value: &mut Value) {
    let Value::Object(fields) = value else { return };
    fields.retain(|name, value| {
        let field = descriptor.get_field_by_json_name(name).or_else(|| descriptor.get_field_by_name(name));
        let Some(field) = field else { return false };
        if let Kind::Message(inner) = field.kind() {
            match value {
                Value::Array(all) => all.iter_mut().for_each(|one| retain_known(&inner, one)),
                one => retain_known(&inner, one),
            }
        }
        true
    });
}

/// Takes the first message out of frames, if it is complete.
pub(in crate::etcd) fn take_message(frames: &mut BytesMut) -> Option<Bytes> {
    let length = frames.get(1..HEAD)?.try_into().map(u32::from_be_bytes).ok()?;
    let length = usize::try_from(length).ok()?;
    if frames.len() - HEAD < length {
        return None;
    }
    frames.advance(HEAD);
    Some(frames.split_to(length).freeze())
}

/// Returns a message in JSON.
pub(in crate::etcd) fn encode_message(descriptor: &MessageDescriptor, message: Bytes) -> Result<Value, Status> {
    let fault = |error: String| Status::internal(format!("cannot write the response: {error}"));
    let options = SerializeOptions::new().use_proto_field_name(true);
    let message = DynamicMessage::decode(descriptor.clone(), message).map_err(|error| fault(error.to_string()))?;
    message.serialize_with_options(serde_json::value::Serializer, &options).map_err(|error| fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::proto::{
        descriptors,
        etcdserverpb::{PutRequest, RangeRequest, TxnRequest, WatchResponse},
        mvccpb::{Event, KeyValue, event::EventType},
    };

    fn decoded<M: Message + Default>(name: &str, many: bool, text: &str) -> Result<Vec<M>, String> {
        let descriptor = descriptors().get_message_by_name(name).unwrap();
        let frames =
            decode_messages(&descriptor, many, text.as_bytes()).map_err(|status| status.message().to_owned())?;
        let mut frames = BytesMut::from(frames);
        let mut messages = vec![];
        while let Some(message) = take_message(&mut frames) {
            messages.push(M::decode(message).unwrap());
        }
        Ok(messages)
    }

    #[test]
    fn requests_are_read_as_grpc_gateway_reads_them() {
        let put = PutRequest { key: "foo".into(), value: "bar".into(), lease: 7, ..PutRequest::default() };
        for lease in ["7", "\"7\""] {
            let text = format!(r#"{{"key": "Zm9v", "value": "YmFy", "lease": {lease}, "unknown": [1]}}"#);
            assert_eq!(decoded("etcdserverpb.PutRequest", false, &text), Ok(vec![put.clone()]));
        }
        let range = RangeRequest { sort_order: 2, sort_target: 3, max_mod_revision: 5, ..RangeRequest::default() };
        for text in [
            r#"{"sort_order": "DESCEND", "sort_target": "MOD", "max_mod_revision": "5"}"#,
            r#"{"sortOrder": 2, "sortTarget": 3, "maxModRevision": 5}"#,
        ] {
            assert_eq!(decoded("etcdserverpb.RangeRequest", false, text), Ok(vec![range.clone()]));
        }
        assert_eq!(decoded("etcdserverpb.PutRequest", false, ""), Ok(vec![PutRequest::default()]));
        let two = decoded::<PutRequest>("etcdserverpb.PutRequest", true, "{} {\"lease\": 1}\n").unwrap();
        assert_eq!(two.len(), 2);
        let txn = r#"{"compare": [{"key": "eA==", "result": "GREATER", "hint": {"a": 1}}], "success": [{"requestPut": {"x": []}}]}"#;
        let read = decoded::<TxnRequest>("etcdserverpb.TxnRequest", false, txn).unwrap();
        assert_eq!((read[0].compare[0].result, read[0].success.len()), (1, 1));
        for (message, wrong) in [
            ("RangeRequest", r#"{"sort_order": "BAD"}"#),
            ("TxnRequest", r#"{"compare": [{"result": "GREATRE"}]}"#),
            ("TxnRequest", r#"{"success": [{"requestTxn": {"compare": [{"target": "NOPE"}]}}]}"#),
        ] {
            let error = decoded::<TxnRequest>(&format!("etcdserverpb.{message}"), false, wrong).unwrap_err();
            assert!(error.contains("unrecognized enum value"), "{error}");
        }
        for wrong in [r#"{"key": "%"}"#, r#"{"lease": "x"}"#, "[", "{"] {
            assert!(decoded::<PutRequest>("etcdserverpb.PutRequest", true, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn responses_are_written_as_grpc_gateway_writes_them() {
        let kv = KeyValue { key: "foo".into(), mod_revision: 5, ..KeyValue::default() };
        let event = Event { r#type: EventType::Delete.into(), kv: Some(kv), prev_kv: None };
        let response = WatchResponse { watch_id: 1, created: true, events: vec![event], ..WatchResponse::default() };
        let descriptor = descriptors().get_message_by_name("etcdserverpb.WatchResponse").unwrap();
        let json = encode_message(&descriptor, response.encode_to_vec().into()).unwrap();
        let event = serde_json::json!({"type": "DELETE", "kv": {"key": "Zm9v", "mod_revision": "5"}});
        assert_eq!(json, serde_json::json!({"watch_id": "1", "created": true, "events": [event]}));
    }
}
