//! What stands between the HTTP stack and tonic's generated services: deadlines, counters, ends of streams that come from outside, and the
//! refusals whose text clients know.

pub mod body;
pub mod call;
pub mod prefix;
pub mod timeout;
