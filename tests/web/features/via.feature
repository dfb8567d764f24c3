Feature: Another server's model answers
  The page says who answers before anything is asked, and at each reply who gave it and what it cost.

  Scenario: Replies name the model, its place and the cost
    Given the page is open with a server that has answers from another one
    Then I see that "big-one" answers from there
    When I say "Hi!"
    Then the last reply reads "Remote words." and names "big-one" with "cost 0.007 USD, this chat 0.007 USD"
    When I say "More!"
    Then the last reply reads "Remote words." and names "big-one" with "cost 0.007 USD, this chat 0.014 USD"
    And its menu offers no token probabilities

  Scenario: The local model stands in
    Given the page is open with a server that has answers from one that is away
    When I say "Hi!"
    Then the last reply says that the local model answered, for the other server "failed (503)"

  Scenario: A refused key
    Given the page is open with a server that has answers from one that refuses its key
    When I say a thing that gets no answer, "Hi!"
    Then an alert shows "refused the key of TOWNHALL_VIA_KEY"
    And nothing on the page holds the key
