Feature: Hostile words
  Whatever a model or a person says is shown, and does nothing.

  Scenario: Forty texts, from both sides
    Given the page is open with the echo model, in a program of its own
    When a chat holds every hostile text, from both sides
    Then each of them is shown, and none of them ran, reached the network or broke the page

  Scenario: Hostile names
    Given the page is open with the echo model, in a program of its own
    When a chat holds "<img src=x onerror=alert(1)>" and is called so, in a folder and with a tag of that name
    Then the list, the search and the branches show it as it stands
