//! A simulated SM-DP+: the ES2+ functions, the profile state machine of SGP.22 section 3.1.6, and a phone that
//! downloads and installs profiles.

mod scenario;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::ORIGIN;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::Listener;
use axum::{Json, Router};
use domain::{ActivationCode, ConfirmationCode, Iccid, MatchingId, SmDpAddress};
use edge::ClockAndRng;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use peers::es2plus::{
    ADMIN_PROTOCOL, CALLBACKS, CancelOrder, CancelOrderResponse, ConfirmOrder, ConfirmOrderResponse, DownloadOrder,
    DownloadOrderResponse, DownloadProgressInfo, ExecutionStatus, FinalStatus, GetProfileStatus,
    GetProfileStatusResponse, PATH, ProfileStatusEntry, ReleaseProfile, ReleaseProfileResponse, RequestHeader,
    ResponseHeader,
};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::db::{Db, DbError};
use crate::failures::{Failures, behind};
use crate::outbox::{self, Callback};
pub use scenario::SmdpScenario;

/// A profile without a row is `Available`, so every ICCID can be ordered. `orders` counts the accepted downloadOrders.
/// `since` is when the profile entered its state, in milliseconds since 1970.
const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS profiles (
        iccid TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        orders INTEGER NOT NULL,
        eid TEXT,
        profile_type TEXT NOT NULL,
        matching_id TEXT UNIQUE,
        code_salt BLOB,
        code_hash BLOB,
        wrong_codes INTEGER NOT NULL,
        since INTEGER
    );";

/// The EID of the simulated phone.
const PHONE_EID: &str = "89049032123451234512345678901235";

/// The number of wrong confirmation codes after which a profile is in the state `Error`.
pub const MAX_WRONG_CODES: u32 = 5;

/// The state of a profile (SGP.22 section 3.1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProfileState {
    /// Not ordered.
    Available,
    /// Ordered.
    Allocated,
    /// Ordered for one phone.
    Linked,
    /// Confirmed; not ready for download yet.
    Confirmed,
    /// Ready for download.
    Released,
    /// Downloaded to a phone.
    Downloaded,
    /// Installed on a phone.
    Installed,
    /// Failed; may be ordered again once the order is cancelled.
    Error,
    /// Never available again.
    Unavailable,
}

impl ProfileState {
    const ALL: [Self; 9] = [
        Self::Available,
        Self::Allocated,
        Self::Linked,
        Self::Confirmed,
        Self::Released,
        Self::Downloaded,
        Self::Installed,
        Self::Error,
        Self::Unavailable,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Available => "Available",
            Self::Allocated => "Allocated",
            Self::Linked => "Linked",
            Self::Confirmed => "Confirmed",
            Self::Released => "Released",
            Self::Downloaded => "Downloaded",
            Self::Installed => "Installed",
            Self::Error => "Error",
            Self::Unavailable => "Unavailable",
        }
    }
}

impl ToSql for ProfileState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for ProfileState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(FromSqlError::InvalidType)
    }
}

/// How the SM-DP+ sends its callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallbackMode {
    /// By their name in SGP.22 v2, `handleDownloadProgressInfo`.
    V2,
    /// By their name in SGP.22 v3, `handleNotification`.
    V3,
    /// Not at all: they are lost.
    Lost,
}

/// A fault of a phone that [`Smdp::fail_install`] plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallFault {
    /// The phone is not eligible for the profile (8.1.1/3.8).
    WrongDevice,
    /// The profile was downloaded too many times (8.8.5/6.4).
    DownloadsUsedUp,
    /// The phone downloads the profile and has no room for it (8.1/4.8).
    NoRoom,
}

/// Why a phone cannot install a profile.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The activation code cannot be parsed.
    #[error("the activation code is malformed")]
    Malformed,
    /// No profile that is ready for download has this activation code.
    #[error("no profile is waiting under this activation code")]
    Unknown,
    /// The confirmation code is wrong or missing.
    #[error("the confirmation code is wrong")]
    WrongCode,
    /// The profile is already installed, or has failed.
    #[error("the activation code can no longer be used: the eSIM is installed, or too many wrong codes were entered")]
    Used,
    /// The phone cannot install the profile.
    #[error("the phone cannot install the eSIM")]
    Failed,
    /// The database failed.
    #[error("the database failed")]
    Db(#[from] rusqlite::Error),
}

impl IntoResponse for InstallError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::WrongCode => StatusCode::FORBIDDEN,
            Self::Used | Self::Failed => StatusCode::CONFLICT,
            Self::Db(error) => {
                tracing::error!(%error, "the SM-DP+ database failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, Json(json!({"message": self.to_string()}))).into_response()
    }
}

/// The result of an ES2+ function: `Err` is the status `Failed` with its codes.
type Verdict<T> = Result<T, ExecutionStatus>;

struct Profile {
    iccid: Iccid,
    state: ProfileState,
    eid: Option<String>,
    profile_type: String,
    matching_id: Option<String>,
    code: Option<HashedCode>,
    wrong_codes: u32,
    since: Option<Timestamp>,
}

/// A salted hash of a confirmation code. The code itself is not stored.
struct HashedCode {
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl HashedCode {
    fn new(code: &ConfirmationCode) -> Self {
        let salt = random::<16>().to_vec();
        let hash = Self::hash(&salt, code.expose());
        Self { salt, hash }
    }

    fn matches(&self, code: Option<&str>) -> bool {
        code.is_some_and(|code| Self::hash(&self.salt, code) == self.hash)
    }

    fn hash(salt: &[u8], code: &str) -> Vec<u8> {
        let salted = [salt, code.as_bytes()].concat();
        digest::digest(&digest::SHA256, &salted).as_ref().to_vec()
    }
}

/// The simulated SM-DP+.
pub struct Smdp {
    db: Db,
    address: SmDpAddress,
    callback_base: String,
    callback_mode: Mutex<CallbackMode>,
    failures: Option<Arc<Failures<SmdpScenario>>>,
    clock: ClockAndRng,
}

impl Smdp {
    /// Opens the database at `path`, or one in memory. `address` is the host name in the activation codes. Callbacks go
    /// to `/gsma/rsp2/es2plus/handleDownloadProgressInfo` below `callback_base_url`, until
    /// [`send_callbacks`](Self::send_callbacks) changes that.
    pub fn open(
        path: Option<&Path>,
        address: SmDpAddress,
        callback_base_url: &str,
        clock: ClockAndRng,
    ) -> rusqlite::Result<Self> {
        let db = Db::open(path, &format!("{TABLE}{}", outbox::TABLE))?;
        db.write(add_since)?;
        let callback_base = format!("{}{PATH}", callback_base_url.trim_end_matches('/'));
        // Callbacks from before a restart go to the current URL of the service.
        let callback_url = format!("{callback_base}{}", CALLBACKS[0]);
        db.write(|change| change.execute("UPDATE outbox SET url = ?1", [&callback_url]))?;
        Ok(Self {
            db,
            address,
            callback_base,
            callback_mode: Mutex::new(CallbackMode::V2),
            failures: None,
            clock,
        })
    }

    /// The same SM-DP+, which fails in this way.
    pub fn failing(self, failures: Option<Arc<Failures<SmdpScenario>>>) -> Self {
        let scenario = failures.as_ref().and_then(|failures| failures.scenario());
        if scenario == Some(SmdpScenario::LosesCallbacks) {
            self.send_callbacks(CallbackMode::Lost);
        }
        Self { failures, ..self }
    }

    /// Sends later callbacks in this way.
    pub fn send_callbacks(&self, mode: CallbackMode) {
        *self.callback_mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Serves the router and sends the callbacks until the task is aborted.
    pub fn serve(self: Arc<Self>, listener: impl Listener, connector: SharedHttpConnector) -> JoinHandle<()> {
        tokio::spawn(async move {
            let router = self.clone().router();
            let deliver = outbox::deliver(&self.db, &connector, &[ADMIN_PROTOCOL], &self.clock);
            tokio::select! {
                never = crate::serve(listener, router) => match never {},
                Err(error) = deliver => {
                    tracing::error!(%error, "the SM-DP+ database failed");
                }
            }
        })
    }

    /// The four ES2+ functions, `getProfileStatus`, and `POST /local/phone/install`.
    pub fn router(self: Arc<Self>) -> Router {
        let functions = Router::new()
            .route(&format!("{PATH}downloadOrder"), post(download_order))
            .route(&format!("{PATH}confirmOrder"), post(confirm_order))
            .route(&format!("{PATH}releaseProfile"), post(release_profile))
            .route(&format!("{PATH}cancelOrder"), post(cancel_order))
            .route(&format!("{PATH}getProfileStatus"), post(get_profile_status));
        behind(self.failures.as_ref(), functions)
            .route("/local/phone/install", post(phone_install))
            .with_state(self)
    }

    /// Plays a phone that downloads a profile and does not install it: sends notification point 3, or 2 after a wrong
    /// confirmation code. After the fifth wrong code, the profile is in the state `Error`.
    pub fn download(&self, activation_code: &str, confirmation_code: Option<&str>) -> Result<Iccid, InstallError> {
        self.db.write(|change| {
            let fetched = self.fetch(change, activation_code, confirmation_code)?;
            Ok(fetched.map(|profile| profile.iccid))
        })?
    }

    /// Plays a phone that downloads a profile, unless it is downloaded already, and installs it: sends notification
    /// points 3 and 4.
    pub fn install(&self, activation_code: &str, confirmation_code: Option<&str>) -> Result<Iccid, InstallError> {
        self.db.write(|change| {
            let profile = match self.fetch(change, activation_code, confirmation_code)? {
                Ok(profile) => profile,
                Err(error) => return Ok(Err(error)),
            };
            self.set_state(change, &profile.iccid, ProfileState::Installed)?;
            self.notify(change, &profile, 4, ExecutionStatus::SUCCESS)?;
            Ok(Ok(profile.iccid))
        })?
    }

    /// Plays a phone that cannot install a profile: sends notification point 1, or 4 if there is no room, with the
    /// codes of the fault. The profile is in the state `Error` then.
    pub fn fail_install(
        &self,
        activation_code: &str,
        confirmation_code: Option<&str>,
        fault: InstallFault,
    ) -> Result<Iccid, InstallError> {
        self.db.write(|change| {
            let (found, point, status) = match fault {
                InstallFault::WrongDevice => (
                    self.find_waiting(change, activation_code)?,
                    1,
                    ExecutionStatus::failed("8.1.1", "3.8", "The phone is not eligible"),
                ),
                InstallFault::DownloadsUsedUp => (
                    self.find_waiting(change, activation_code)?,
                    1,
                    ExecutionStatus::failed("8.8.5", "6.4", "Too many downloads"),
                ),
                InstallFault::NoRoom => (
                    self.fetch(change, activation_code, confirmation_code)?,
                    4,
                    ExecutionStatus::failed("8.1", "4.8", "No room for the profile"),
                ),
            };
            let profile = match found {
                Ok(profile) => profile,
                Err(error) => return Ok(Err(error)),
            };
            self.set_state(change, &profile.iccid, ProfileState::Error)?;
            self.notify(change, &profile, point, status)?;
            Ok(Ok(profile.iccid))
        })?
    }

    /// Reports the success of a step above 4, as some vendors do when a profile is enabled, disabled or deleted.
    pub fn report_point(&self, iccid: &Iccid, point: u32) -> Result<(), InstallError> {
        self.db.write(|change| {
            let Some(profile) = find(change, "iccid", iccid.as_str())? else {
                return Ok(Err(InstallError::Unknown));
            };
            self.notify(change, &profile, point, ExecutionStatus::SUCCESS).map(Ok)
        })?
    }

    /// Removes the callbacks from the outbox, oldest first. The caller has to send them.
    pub fn take_callbacks(&self) -> rusqlite::Result<Vec<Callback>> {
        self.db.write(outbox::take)
    }

    /// The state of a profile.
    pub fn profile_state(&self, iccid: &Iccid) -> rusqlite::Result<ProfileState> {
        let found = self.db.read(|db| find(db, "iccid", iccid.as_str()))?;
        Ok(found.map_or(ProfileState::Available, |profile| profile.state))
    }

    /// The matching id of a profile's order; `None` if it has none.
    pub fn matching_id(&self, iccid: &Iccid) -> rusqlite::Result<Option<String>> {
        let found = self.db.read(|db| find(db, "iccid", iccid.as_str()))?;
        Ok(found.and_then(|profile| profile.matching_id))
    }

    /// Whether a phone has downloaded the profile of the current order.
    pub fn has_phone(&self, iccid: &Iccid) -> rusqlite::Result<bool> {
        let found = self.db.read(|db| find(db, "iccid", iccid.as_str()))?;
        Ok(found.is_some_and(|profile| profile.eid.is_some()))
    }

    /// The number of accepted downloadOrders for this profile.
    pub fn orders_of(&self, iccid: &Iccid) -> rusqlite::Result<usize> {
        let orders = self.db.read(|db| {
            db.query_row(
                "SELECT orders FROM profiles WHERE iccid = ?1",
                [iccid.as_str()],
                |row| row.get(0),
            )
            .optional()
        })?;
        Ok(orders.unwrap_or(0))
    }

    /// The profile that a phone may download with this activation code.
    fn find_waiting(
        &self,
        change: &Transaction<'_>,
        activation_code: &str,
    ) -> rusqlite::Result<Result<Profile, InstallError>> {
        let Ok(code) = ActivationCode::parse(activation_code) else {
            return Ok(Err(InstallError::Malformed));
        };
        let ours = code.smdp().as_str().eq_ignore_ascii_case(self.address.as_str());
        let found = find(change, "matching_id", code.matching_id().expose())?;
        let Some(profile) = found.filter(|_| ours) else {
            return Ok(Err(InstallError::Unknown));
        };
        Ok(match profile.state {
            ProfileState::Released | ProfileState::Downloaded => Ok(profile),
            ProfileState::Installed | ProfileState::Error => Err(InstallError::Used),
            _ => Err(InstallError::Unknown),
        })
    }

    fn fetch(
        &self,
        change: &Transaction<'_>,
        activation_code: &str,
        confirmation_code: Option<&str>,
    ) -> rusqlite::Result<Result<Profile, InstallError>> {
        let profile = match self.find_waiting(change, activation_code)? {
            Ok(profile) => profile,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(expected) = &profile.code
            && !expected.matches(confirmation_code)
        {
            self.count_wrong_code(change, &profile)?;
            return Ok(Err(InstallError::WrongCode));
        }
        if profile.state == ProfileState::Released {
            change.execute(
                "UPDATE profiles SET eid = COALESCE(eid, ?2) WHERE iccid = ?1",
                [profile.iccid.as_str(), PHONE_EID],
            )?;
            self.set_state(change, &profile.iccid, ProfileState::Downloaded)?;
            self.notify(change, &profile, 3, ExecutionStatus::SUCCESS)?;
        }
        Ok(Ok(profile))
    }

    fn count_wrong_code(&self, change: &Transaction<'_>, profile: &Profile) -> rusqlite::Result<()> {
        change.execute(
            "UPDATE profiles SET wrong_codes = wrong_codes + 1 WHERE iccid = ?1",
            [profile.iccid.as_str()],
        )?;
        let status = if profile.wrong_codes + 1 < MAX_WRONG_CODES {
            ExecutionStatus::failed("8.2.7", "3.8", "Confirmation code refused")
        } else {
            self.set_state(change, &profile.iccid, ProfileState::Error)?;
            ExecutionStatus::failed("8.2.7", "6.4", "Too many wrong confirmation codes")
        };
        self.notify(change, profile, 2, status)
    }

    fn set_state(&self, change: &Transaction<'_>, iccid: &Iccid, state: ProfileState) -> rusqlite::Result<()> {
        change
            .execute(
                "UPDATE profiles SET state = ?2, since = ?3 WHERE iccid = ?1",
                params![iccid.as_str(), state, self.clock.now().as_millisecond()],
            )
            .map(|_| ())
    }

    fn notify(
        &self,
        change: &Transaction<'_>,
        profile: &Profile,
        point: u32,
        status: ExecutionStatus,
    ) -> rusqlite::Result<()> {
        let mode = *self.callback_mode.lock().unwrap_or_else(PoisonError::into_inner);
        let name = match mode {
            CallbackMode::V2 => CALLBACKS[0],
            CallbackMode::V3 => CALLBACKS[1],
            CallbackMode::Lost => return Ok(()),
        };
        let url = format!("{}{name}", self.callback_base);
        let info = DownloadProgressInfo {
            header: Some(RequestHeader {
                function_requester_identifier: self.address.as_str().to_owned(),
                function_call_identifier: format!("N-{}", u64::from_be_bytes(random())),
            }),
            eid: Some(profile.eid.clone().unwrap_or_else(|| PHONE_EID.to_owned())),
            iccid: profile.iccid.clone(),
            profile_type: Some(profile.profile_type.clone()),
            timestamp: Some(self.clock.now()),
            notification_point_id: point,
            notification_point_status: status,
            result_data: None,
        };
        outbox::put(change, profile.iccid.as_str(), &url, &info)
    }
}

async fn download_order(State(smdp): State<Arc<Smdp>>, body: Bytes) -> Response {
    respond(&smdp, &body, |order: DownloadOrder| {
        let verdict = smdp
            .db
            .write(|change| order_profile(change, &order, smdp.clock.now()))?;
        Ok(DownloadOrderResponse {
            iccid: verdict.as_ref().ok().cloned(),
            header: header(verdict),
        })
    })
}

async fn confirm_order(State(smdp): State<Arc<Smdp>>, body: Bytes) -> Response {
    respond(&smdp, &body, |order: ConfirmOrder| {
        let verdict = smdp
            .db
            .write(|change| confirm_profile(change, &order, smdp.clock.now()))?;
        Ok(ConfirmOrderResponse {
            eid: None,
            matching_id: verdict.as_ref().ok().cloned(),
            smdp_address: verdict.as_ref().ok().map(|_| smdp.address.as_str().to_owned()),
            header: header(verdict),
        })
    })
}

async fn release_profile(State(smdp): State<Arc<Smdp>>, body: Bytes) -> Response {
    respond(&smdp, &body, |release: ReleaseProfile| {
        let verdict = smdp.db.write(|change| {
            let Some(profile) = find(change, "iccid", release.iccid.as_str())? else {
                return Ok(Err(unknown_iccid()));
            };
            if profile.state != ProfileState::Confirmed {
                return Ok(Err(wrong_transition()));
            }
            smdp.set_state(change, &profile.iccid, ProfileState::Released).map(Ok)
        })?;
        Ok(ReleaseProfileResponse {
            header: header(verdict),
        })
    })
}

async fn cancel_order(State(smdp): State<Arc<Smdp>>, body: Bytes) -> Response {
    respond(&smdp, &body, |cancel: CancelOrder| {
        let verdict = smdp
            .db
            .write(|change| cancel_profile(change, &cancel, smdp.clock.now()))?;
        Ok(CancelOrderResponse {
            header: header(verdict),
        })
    })
}

async fn get_profile_status(State(smdp): State<Arc<Smdp>>, body: Bytes) -> Response {
    respond(&smdp, &body, |request: GetProfileStatus| {
        let status_of = |db: &Connection, iccid: Iccid| {
            let found = find(db, "iccid", iccid.as_str())?;
            let state = found.as_ref().map_or(ProfileState::Available, |profile| profile.state);
            Ok(ProfileStatusEntry {
                iccid,
                state: state.as_str().to_owned(),
                status_last_update_timestamp: found.as_ref().and_then(|profile| profile.since),
                eid: found.and_then(|profile| profile.eid),
            })
        };
        let profiles = request.iccid_list.into_iter();
        Ok(GetProfileStatusResponse {
            profile_status_list: smdp
                .db
                .read(|db| profiles.map(|profile| status_of(db, profile.iccid)).collect())?,
            header: header(Ok(())),
        })
    })
}

async fn phone_install(
    State(smdp): State<Arc<Smdp>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, InstallError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Phone {
        activation_code: String,
        confirmation_code: Option<String>,
    }
    // Only browsers send this header, and no web page may play the phone.
    if headers.contains_key(ORIGIN) {
        return Err(InstallError::Malformed);
    }
    let phone: Phone = serde_json::from_slice(&body).map_err(|_| InstallError::Malformed)?;
    let (activation_code, confirmation_code) = (&phone.activation_code, phone.confirmation_code.as_deref());
    let scenario = smdp.failures.as_ref().and_then(|failures| failures.scenario());
    if let Some(fault) = scenario.and_then(SmdpScenario::install_fault) {
        smdp.fail_install(activation_code, confirmation_code, fault)?;
        return Err(InstallError::Failed);
    }
    let iccid = smdp.install(activation_code, confirmation_code)?;
    Ok(Json(json!({"iccid": iccid.as_str()})).into_response())
}

/// Responds with 200 for both success and failure of the function. Only a malformed request gets a 400 (SGP.22
/// section 6.3). The `Date` header has the time of the SM-DP+'s clock, by which its callbacks are dated too.
fn respond<Q: DeserializeOwned, A: Serialize>(
    smdp: &Smdp,
    body: &[u8],
    work: impl FnOnce(Q) -> rusqlite::Result<A>,
) -> Response {
    let Ok(request) = serde_json::from_slice(body) else {
        return (StatusCode::BAD_REQUEST, [ADMIN_PROTOCOL]).into_response();
    };
    match work(request) {
        Ok(response) => {
            let date = rfc2822::DateTimePrinter::new()
                .timestamp_to_rfc9110_string(&smdp.clock.now())
                .expect("the clock shows a year of four digits");
            ([ADMIN_PROTOCOL, ("Date", &date)], Json(response)).into_response()
        }
        Err(error) => DbError::from(error).into_response(),
    }
}

fn header<T>(verdict: Verdict<T>) -> ResponseHeader {
    ResponseHeader {
        function_execution_status: verdict.err().unwrap_or(ExecutionStatus::SUCCESS),
    }
}

fn order_profile(change: &Transaction<'_>, order: &DownloadOrder, now: Timestamp) -> rusqlite::Result<Verdict<Iccid>> {
    let Some(iccid) = &order.iccid else {
        let message = "Profiles are ordered by ICCID here";
        return Ok(Err(ExecutionStatus::failed("8.2.5", "3.9", message)));
    };
    let found = find(change, "iccid", iccid.as_str())?;
    if found.is_some_and(|profile| profile.state != ProfileState::Available) {
        return Ok(Err(not_available()));
    }
    let state = match order.eid {
        Some(_) => ProfileState::Linked,
        None => ProfileState::Allocated,
    };
    let profile_type = order.profile_type.as_deref().unwrap_or("CONSUMER");
    change.execute(
        "INSERT INTO profiles (iccid, state, orders, eid, profile_type, wrong_codes, since)
         VALUES (?1, ?2, 1, ?3, ?4, 0, ?5)
         ON CONFLICT (iccid) DO UPDATE SET
             state = ?2, orders = orders + 1, eid = ?3, profile_type = ?4, wrong_codes = 0, since = ?5",
        params![iccid.as_str(), state, order.eid, profile_type, now.as_millisecond()],
    )?;
    Ok(Ok(iccid.clone()))
}

fn confirm_profile(
    change: &Transaction<'_>,
    order: &ConfirmOrder,
    now: Timestamp,
) -> rusqlite::Result<Verdict<MatchingId>> {
    let found = find(change, "iccid", order.iccid.as_str())?;
    let Some(profile) = found.filter(|profile| profile.state != ProfileState::Available) else {
        return Ok(Err(unknown_iccid()));
    };
    if let Some(matching_id) = &order.matching_id
        && is_confirmed_as(&profile, order)
    {
        return Ok(Ok(matching_id.clone()));
    }
    if !matches!(profile.state, ProfileState::Allocated | ProfileState::Linked) {
        return Ok(Err(wrong_transition()));
    }
    if profile.eid.is_some() && order.eid.is_some() && profile.eid != order.eid {
        let message = "Another EID is tied to this ICCID";
        return Ok(Err(ExecutionStatus::failed("8.2.1", "3.10", message)));
    }
    let matching_id = order
        .matching_id
        .clone()
        .unwrap_or_else(|| MatchingId::from_random(u128::from_be_bytes(random())));
    if find(change, "matching_id", matching_id.expose())?.is_some() {
        let message = "Matching id in use";
        return Ok(Err(ExecutionStatus::failed("8.2.6", "3.3", message)));
    }
    let state = if order.release_flag {
        ProfileState::Released
    } else {
        ProfileState::Confirmed
    };
    let code = order.confirmation_code.as_ref().map(HashedCode::new);
    change.execute(
        "UPDATE profiles
         SET state = ?2, eid = COALESCE(eid, ?3), matching_id = ?4, code_salt = ?5, code_hash = ?6, since = ?7
         WHERE iccid = ?1",
        params![
            order.iccid.as_str(),
            state,
            order.eid,
            matching_id.expose(),
            code.as_ref().map(|code| &code.salt),
            code.as_ref().map(|code| &code.hash),
            now.as_millisecond(),
        ],
    )?;
    Ok(Ok(matching_id))
}

/// Whether this order repeats an earlier one, whose response may have been lost.
fn is_confirmed_as(profile: &Profile, order: &ConfirmOrder) -> bool {
    let state = if order.release_flag {
        ProfileState::Released
    } else {
        ProfileState::Confirmed
    };
    let code = order.confirmation_code.as_ref().map(ConfirmationCode::expose);
    let same_code = match &profile.code {
        Some(expected) => expected.matches(code),
        None => code.is_none(),
    };
    let id = order.matching_id.as_ref().map(MatchingId::expose);
    profile.state == state && id == profile.matching_id.as_deref() && same_code
}

fn cancel_profile(change: &Transaction<'_>, cancel: &CancelOrder, now: Timestamp) -> rusqlite::Result<Verdict<()>> {
    let Some(profile) = find(change, "iccid", cancel.iccid.as_str())? else {
        return Ok(Err(unknown_iccid()));
    };
    let target = match cancel.final_profile_status_indicator {
        FinalStatus::Available => ProfileState::Available,
        FinalStatus::Unavailable => ProfileState::Unavailable,
    };
    match profile.state {
        // A repeated request.
        state if state == target => return Ok(Ok(())),
        ProfileState::Available => return Ok(Err(unknown_iccid())),
        ProfileState::Unavailable => return Ok(Err(wrong_transition())),
        ProfileState::Downloaded | ProfileState::Installed => return Ok(Err(not_available())),
        _ => {}
    }
    let requested = cancel.matching_id.as_ref().map(MatchingId::expose);
    if requested.is_some() && profile.matching_id.is_some() && requested != profile.matching_id.as_deref() {
        let message = "Another matching id is tied to this ICCID";
        return Ok(Err(ExecutionStatus::failed("8.2.6", "3.10", message)));
    }
    change.execute(
        "UPDATE profiles
         SET state = ?2, eid = NULL, matching_id = NULL, code_salt = NULL, code_hash = NULL, since = ?3
         WHERE iccid = ?1",
        params![cancel.iccid.as_str(), target, now.as_millisecond()],
    )?;
    Ok(Ok(()))
}

fn unknown_iccid() -> ExecutionStatus {
    ExecutionStatus::failed("8.2.1", "3.9", "No order for this ICCID")
}

fn not_available() -> ExecutionStatus {
    ExecutionStatus::failed("8.2.1", "3.3", "Profile not available")
}

fn wrong_transition() -> ExecutionStatus {
    ExecutionStatus::failed("8.2.1", "3.5", "Not possible in the profile's state")
}

/// Adds the column `since` to the table of an earlier version, which survives in data directories.
fn add_since(change: &Transaction<'_>) -> rusqlite::Result<()> {
    let query = "SELECT COUNT(*) FROM pragma_table_info('profiles') WHERE name = 'since'";
    let columns: i64 = change.query_row(query, (), |row| row.get(0))?;
    if columns == 0 {
        change.execute("ALTER TABLE profiles ADD COLUMN since INTEGER", ())?;
    }
    Ok(())
}

/// The profile whose column (`iccid` or `matching_id`) has this value.
fn find(db: &Connection, column: &str, value: &str) -> rusqlite::Result<Option<Profile>> {
    db.prepare_cached(&format!(
        "SELECT iccid, state, eid, profile_type, matching_id, code_salt, code_hash, wrong_codes, since
         FROM profiles WHERE {column} = ?1"
    ))?
    .query_row([value], |row| {
        let salt: Option<Vec<u8>> = row.get(5)?;
        let hash: Option<Vec<u8>> = row.get(6)?;
        Ok(Profile {
            iccid: Iccid::parse(row.get_ref(0)?.as_str()?).expect("only ICCIDs are stored"),
            state: row.get(1)?,
            eid: row.get(2)?,
            profile_type: row.get(3)?,
            matching_id: row.get(4)?,
            code: salt.zip(hash).map(|(salt, hash)| HashedCode { salt, hash }),
            wrong_codes: row.get(7)?,
            since: row
                .get::<_, Option<i64>>(8)?
                .and_then(|since| Timestamp::from_millisecond(since).ok()),
        })
    })
    .optional()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system has random numbers");
    bytes
}

#[cfg(test)]
mod tests;
