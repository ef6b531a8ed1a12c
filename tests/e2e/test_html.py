"""The HTML report in a real browser: every result opens from the one file, without an error and without the network."""

import json
import shutil
import time

import pytest

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
WIDTH, HEIGHT = 1280, 900


@pytest.fixture(scope="module")
def page(finished):
    """The report of the tiny study, made by Snakemake, with everything else moved out of reach."""
    finished.snakemake("--report", "report.html")
    return (finished.folder / "report.html").resolve()


@pytest.fixture
def browser(tmp_path):
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromium-driver are not installed: the HTML report is not opened in a browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.add_argument(f"--window-size={WIDTH},{HEIGHT}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def requests(driver):
    """Addresses on a network that the page asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    sent = [found["params"]["request"]["url"] for found in messages if found["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if url.startswith(("http:", "https:", "ws:", "wss:", "ftp:"))]


def wait(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the page did not show what was asked for"
        time.sleep(0.05)


def click(driver, element):
    driver.execute_script("arguments[0].click()", element)


def test_the_report_opens_offline_without_an_error(page, browser):
    browser.get(page.as_uri())
    wait(lambda: "report" in browser.find_element(By.TAG_NAME, "body").text.lower())
    categories = browser.execute_script("return Object.keys(categories)")
    assert {"Answer", "Speed", "Memory", "Accuracy", "Proof", "The study on trial"} <= set(categories)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert errors == [] and requests(browser) == []


def test_every_result_is_in_the_file_and_shows(page, browser, tmp_path):
    browser.get(page.as_uri())
    wait(lambda: browser.execute_script("return typeof results !== 'undefined'"))
    found = browser.execute_script(
        "return Object.entries(results).map(([path, r]) => [path, r.name, r.mime_type, r.data_uri])"
    )
    assert sum(path.endswith(".svg") for path, *_ in found) >= 10
    assert sum(path.endswith(".html") for path, *_ in found) >= 20
    for path, name, mime, data in found:
        assert data and data.startswith("data:"), path
        if "svg" not in mime and "html" not in mime:
            continue
        browser.get(data if "svg" in mime else "about:blank")
        if "html" in mime:
            browser.execute_script("document.open(); document.write(atob(arguments[0].split(',')[1]))", data)
            # no graph variant runs on a CPU, and the table of launch overhead is then empty
            rows = browser.find_elements(By.CSS_SELECTOR, "table tbody tr")
            assert rows or name == "launch.html", name
        else:
            assert browser.execute_script("return document.documentElement.getBoundingClientRect().width") > 100, name
        assert requests(browser) == [], name
        assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == [], name


def test_a_table_sorts_by_a_click(finished, browser):
    browser.get((finished.results / "tables" / "html" / "summary.html").resolve().as_uri())
    heads = browser.find_elements(By.CSS_SELECTOR, "table thead th")
    place = next(index for index, head in enumerate(heads) if "decode_tokens_per_s" in head.text)

    def column():
        cells = browser.find_elements(By.CSS_SELECTOR, f"table tbody tr td:nth-child({place + 1})")
        return [float(cell.text.replace(",", "")) for cell in cells]

    heads[place].click()
    first = column()
    assert first in (sorted(first), sorted(first, reverse=True)) and len(first) == 7
    heads[place].click()
    assert column() == first[::-1]
