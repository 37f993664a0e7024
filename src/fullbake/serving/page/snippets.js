// Lines of code that send a text to a model. Texts, names and columns are data: quoted as each language asks for.

export const LANGUAGES = ["curl", "Python", "JavaScript"];

// request: {url, body, withKey}. body: what /v1/predict takes.
export function snippet(language, { url, body, withKey }) {
  const json = JSON.stringify(body);
  if (language === "curl") return curl(url, json, withKey);
  const pretty = JSON.stringify(body, null, 4);
  return language === "Python" ? python(url, pretty, withKey) : javascript(url, pretty, withKey);
}

function curl(url, json, withKey) {
  const key = withKey ? ` \\\n  -H "Authorization: Bearer $FULLBAKE_API_KEY"` : "";
  return `curl ${shell(url)} \\\n  -H 'Content-Type: application/json'${key} \\\n  -d ${shell(json)}\n`;
}

function shell(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// A JSON text of strings, lists and objects is Python and JavaScript too.
function python(url, json, withKey) {
  const key = withKey ? `\n    headers={"Authorization": f"Bearer {os.environ['FULLBAKE_API_KEY']}"},` : "";
  return `${withKey ? "import os\n\n" : ""}import requests

response = requests.post(
    ${JSON.stringify(url)},
    json=${indent(json, "    ")},${key}
    timeout=60,
)
response.raise_for_status()
for result in response.json()["results"]:
    print(result)
`;
}

function javascript(url, json, withKey) {
  const key = withKey ? "\n    Authorization: `Bearer ${process.env.FULLBAKE_API_KEY}`," : "";
  return `const response = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${key}
  },
  body: JSON.stringify(${indent(json, "  ")}),
});
if (!response.ok) throw new Error(await response.text());
console.log((await response.json()).results);
`;
}

function indent(text, by) {
  return text.replaceAll("\n", `\n${by}`);
}
