//! The two peers on the wire: the SM-DP+ (ES2+) and the network (TMF641). What an answer means for a swap is not here.

mod access;
pub mod es2plus;
mod facts;
pub mod http;
mod lenient;
mod response;
pub mod tmf641;

pub use access::{Access, BadSecret};
pub use es2plus::{Confirmed, Es2Plus, Es2PlusError, FinalStatus};
pub use lenient::read_json;
pub use response::{FailureClass, Peer, TransientFailure};
pub use tmf641::{NewOrder, Order, OrderState, OrderingError, ServiceOrdering};

/// The connector to a peer that is shown nothing.
pub fn connector() -> aws_smithy_runtime_api::client::http::SharedHttpConnector {
    Access::default().connector()
}
