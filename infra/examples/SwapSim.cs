// Swaps a line to an eSIM: submits the swap, polls it, sends the QR code again, cancels, and handles errors.
//
// Needs .NET or Mono, and nothing else. README.md in this folder says how to run it.

using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Text;
using System.Threading.Tasks;

// Absent fields are null. API.md lists all fields.
[DataContract]
class SwapRequest
{
    [DataMember(Name = "subscriptionId")] public string SubscriptionId;
    [DataMember(Name = "eSim")] public bool ESim = true;
    [DataMember(Name = "email")] public string Email;
    [DataMember(Name = "confirmationCode")] public string ConfirmationCode;
}

[DataContract]
class ResendRequest
{
    [DataMember(Name = "email")] public string Email;
}

[DataContract]
class Page
{
    [DataMember(Name = "results")] public List<Activation> Results;
}

[DataContract]
class Activation
{
    [DataMember(Name = "id")] public string Id;
    [DataMember(Name = "status")] public string Status;
    [DataMember(Name = "info")] public Info Info;

    public bool IsOver => Status == "DONE" || Status == "ERROR";
    public bool IsMailedOrOver => (Info.Delivery ?? "pending") != "pending" || IsOver;
}

[DataContract]
class Info
{
    [DataMember(Name = "delivery")] public string Delivery;
    [DataMember(Name = "failure")] public Failure Failure;
}

[DataContract]
class Failure
{
    [DataMember(Name = "code")] public string Code;
    [DataMember(Name = "message")] public string Message;
}

// The body of an error: `responseStatus` comes from the service, `message` from API Gateway.
[DataContract]
class ErrorBody
{
    [DataMember(Name = "responseStatus")] public ResponseStatus ResponseStatus;
    [DataMember(Name = "message")] public string Message;
}

[DataContract]
class ResponseStatus
{
    [DataMember(Name = "errorCode")] public string ErrorCode;
    [DataMember(Name = "message")] public string Message;
    [DataMember(Name = "errors")] public List<FieldError> Errors;
}

[DataContract]
class FieldError
{
    [DataMember(Name = "fieldName")] public string FieldName;
    [DataMember(Name = "message")] public string Message;
    [DataMember(Name = "meta")] public Dictionary<string, string> Meta;
}

// A response that is not a 200. `Code` is null if API Gateway has sent it.
class ApiError : Exception
{
    public readonly int Status;
    public readonly string Code;
    public readonly List<FieldError> Fields;
    public readonly TimeSpan? RetryAfter;

    public ApiError(int status, ErrorBody body, TimeSpan? retryAfter)
        : base($"{status} {body.ResponseStatus?.ErrorCode ?? "from API Gateway"}: " +
            (body.ResponseStatus?.Message ?? body.Message ?? "no message"))
    {
        Status = status;
        Code = body.ResponseStatus?.ErrorCode;
        Fields = body.ResponseStatus?.Errors ?? new List<FieldError>();
        RetryAfter = retryAfter;
    }

    // The time after which to send the request again, or null if that would not help.
    public TimeSpan? Pause(TimeSpan byDefault)
    {
        var isTemporary = Status == 500 || Status == 503 || (Status == 429 && Code == null);
        return RetryAfter ?? (isTemporary ? byDefault : (TimeSpan?)null);
    }
}

class Client
{
    // The service itself may take 28 seconds to respond.
    static readonly TimeSpan ResponseTimeout = TimeSpan.FromSeconds(30);
    const int Attempts = 5;
    public static readonly TimeSpan LongestPause = TimeSpan.FromSeconds(10);
    static readonly TimeSpan PollInterval = TimeSpan.FromSeconds(5);
    static readonly TimeSpan PollLimit = TimeSpan.FromMinutes(5);

    static readonly DataContractJsonSerializerSettings JsonSettings =
        new DataContractJsonSerializerSettings { UseSimpleDictionaryFormat = true };

    readonly HttpClient http = new HttpClient { Timeout = ResponseTimeout };
    readonly string url;

    public Client(string url, string token)
    {
        this.url = url.TrimEnd('/');
        http.DefaultRequestHeaders.Add("Authorization", "Bearer " + token);
    }

    public Task<Activation> Submit(string key, SwapRequest swap) =>
        Send<Activation>(HttpMethod.Post, "/api/SimSwapSubscription", key, swap);

    public async Task<Activation> Query(string id)
    {
        var page = await Send<Page>(HttpMethod.Get, "/api/QueryActivation?id=" + Uri.EscapeDataString(id));
        return page.Results[0];
    }

    // Sends the QR code again, to another address if `email` is given.
    public Task<Activation> Resend(string key, string id, string email = null)
    {
        var body = new ResendRequest { Email = email };
        return Send<Activation>(HttpMethod.Post, "/api/ResendEsim?id=" + Uri.EscapeDataString(id), key, body);
    }

    public Task<Activation> Cancel(string key, string id) =>
        Send<Activation>(HttpMethod.Post, "/api/CancelActivation?id=" + Uri.EscapeDataString(id), key);

    // Polls a swap until `isReached` holds for it.
    public async Task<Activation> PollUntil(string id, Func<Activation, bool> isReached)
    {
        var deadline = DateTime.UtcNow + PollLimit;
        while (true)
        {
            var swap = await Query(id);
            if (isReached(swap)) return swap;
            if (DateTime.UtcNow + PollInterval > deadline)
                throw new Exception($"The swap is {swap.Status} after {PollLimit}. Poll it once a minute from now on.");
            await Task.Delay(PollInterval);
        }
    }

    // Sends a request, again if that may help. All attempts have the same key, so they count as one request.
    async Task<T> Send<T>(HttpMethod method, string path, string key = null, object body = null)
    {
        for (var attempt = 1; ; attempt++)
        {
            TimeSpan? pause = TimeSpan.FromSeconds(1 << (attempt - 1));
            Exception error;
            try
            {
                var request = new HttpRequestMessage(method, url + path);
                if (key != null) request.Headers.Add("Idempotency-Key", key);
                if (body != null) request.Content = new StringContent(Write(body), Encoding.UTF8, "application/json");
                var response = await http.SendAsync(request);
                var text = await response.Content.ReadAsStringAsync();
                if (response.IsSuccessStatusCode) return Read<T>(text);
                var retryAfter = response.Headers.RetryAfter?.Delta;
                var refusal = new ApiError((int)response.StatusCode, ReadError(text), retryAfter);
                pause = refusal.Pause(pause.Value);
                error = refusal;
            }
            // A 200 that is not JSON.
            catch (SerializationException fault)
            {
                error = new Exception($"{url} is not the URL of the service: {fault.Message}");
            }
            // No connection, or no response in time.
            catch (Exception failure) when (failure is HttpRequestException || failure is TaskCanceledException)
            {
                error = new Exception($"{url} cannot be reached: {failure.GetBaseException().Message}");
            }
            if (pause == null || pause > LongestPause || attempt == Attempts) throw error;
            var seconds = pause.Value.TotalSeconds;
            Console.WriteLine($"Attempt {attempt} failed ({error.Message}). The next one follows in {seconds} s.");
            await Task.Delay(pause.Value);
        }
    }

    // A body that is not JSON comes from something in between, and counts as an empty one.
    static ErrorBody ReadError(string text)
    {
        try
        {
            return Read<ErrorBody>(text) ?? new ErrorBody();
        }
        catch (SerializationException)
        {
            return new ErrorBody();
        }
    }

    static string Write(object body)
    {
        using (var stream = new MemoryStream())
        {
            new DataContractJsonSerializer(body.GetType(), JsonSettings).WriteObject(stream, body);
            return Encoding.UTF8.GetString(stream.ToArray());
        }
    }

    static T Read<T>(string json)
    {
        using (var stream = new MemoryStream(Encoding.UTF8.GetBytes(json)))
            return (T)new DataContractJsonSerializer(typeof(T), JsonSettings).ReadObject(stream);
    }
}

static class SwapSim
{
    static int Main(string[] arguments)
    {
        var url = Environment.GetEnvironmentVariable("SIMSWAP_URL");
        try
        {
            Run(url, arguments[0]).GetAwaiter().GetResult();
            return 0;
        }
        catch (ApiError error)
        {
            Console.Error.WriteLine($"{url} has responded with {error.Message}");
            return 1;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error.Message);
            return 1;
        }
    }

    static async Task Run(string url, string line)
    {
        var api = new Client(url, Environment.GetEnvironmentVariable("SIMSWAP_TOKEN"));
        var request = new SwapRequest
        {
            SubscriptionId = line,
            Email = "customer@example.com",
            ConfirmationCode = "8E9!#",
        };

        // A 400 lists all faulty fields at once.
        var faulty = new SwapRequest { SubscriptionId = line, Email = "", ConfirmationCode = "12345678901" };
        var invalid = await ExpectError(400, api.Submit(NewKey(), faulty));
        foreach (var field in invalid.Fields) Console.WriteLine($"Faulty field {field.FieldName}: {field.Message}");
        var names = invalid.Fields.Select(field => field.FieldName).OrderBy(name => name);
        Expect(names.SequenceEqual(new[] { "confirmationCode", "email" }), "Expected two faulty fields.");

        // Store the key before you send the request. If your process ends before the response arrives, send the same
        // request with the same key again: the response contains the swap, and no second one begins.
        var key = NewKey();
        var accepted = await api.Submit(key, request);
        Console.WriteLine($"The swap {accepted.Id} is {accepted.Status}.");
        Expect((await api.Submit(key, request)).Id == accepted.Id, "A repeated request has the same response.");

        // Another request for the line gets a 409 with the id of the open swap, which may come from elsewhere.
        var conflict = await ExpectError(409, api.Submit(NewKey(), request));
        Expect(conflict.Code == "SwapInProgress", $"Expected SwapInProgress, got {conflict.Message}");
        var openId = conflict.Fields[0].Meta["activationId"];
        Console.WriteLine($"The line already has the open swap {openId}.");
        Expect(openId == accepted.Id, "The open swap is another one.");

        var mailed = await api.PollUntil(accepted.Id, swap => swap.IsMailedOrOver);
        var delivery = mailed.Info.Delivery;
        Console.WriteLine($"The swap is {mailed.Status}, and its e-mail is {delivery}.");
        Expect(mailed.Status == "BUSY" && (delivery == "sent" || delivery == "delivered"), "Expected an e-mail.");

        await api.Resend(NewKey(), accepted.Id);
        Console.WriteLine("The QR code is sent again.");
        // Another e-mail within a minute gets a 429. `Retry-After` is longer than a program should wait: tell a person.
        var tooSoon = await ExpectError(429, api.Resend(NewKey(), accepted.Id));
        Expect(tooSoon.RetryAfter > Client.LongestPause, $"Expected a longer Retry-After in {tooSoon.Message}");
        Console.WriteLine("The QR code can be sent again in a minute.");

        // The response to a cancel request may come before the swap has ended.
        await api.Cancel(NewKey(), accepted.Id);
        var ended = await api.PollUntil(accepted.Id, swap => swap.IsOver);
        Console.WriteLine($"The swap is {ended.Status}: {ended.Info.Failure?.Message}");
        Expect(ended.Info.Failure?.Code == "cancelled", "Expected the failure code cancelled.");
    }

    static string NewKey() => Guid.NewGuid().ToString();

    // Waits for a response that has to be an error with this status code, and returns the error.
    static async Task<ApiError> ExpectError(int status, Task<Activation> response)
    {
        try
        {
            await response;
        }
        catch (ApiError error)
        {
            Expect(error.Status == status, $"Expected a {status}, got {error.Message}");
            return error;
        }
        throw new Exception($"Expected a {status}, got a 200.");
    }

    static void Expect(bool holds, string otherwise)
    {
        if (!holds) throw new Exception(otherwise);
    }
}
